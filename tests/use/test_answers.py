"""A group's answers, in whatever form they come, become shares of the survey's questions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.errors import AnswersError, SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from pluralllm_app.use.matching import KnownAnswers, match_answers
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question
from pluralllm_app.use.reading import Answers, read_given
from tests.support.used import OFTEN, QUESTIONS, YES_NO, shares_of

HARBOUR, MUSEUM = YES_NO[:2]
FERRY = OFTEN[3]


@pytest.fixture
def read(predictor: Predictor) -> Any:
    def read(answers: Answers) -> KnownAnswers:
        return match_answers(read_given(answers), predictor.survey.catalogue)

    return read


@pytest.mark.parametrize(
    "numbers",
    [
        {"Yes": 0.3, "No": 0.7},
        {"no": 0.7, "YES": 0.3},
        {"Yes": 30, "No": 70},
        {"Yes": 3, "No": 7},
        [0.3, 0.7],
        np.array([0.3, 0.7]),
        [600, 1400],
    ],
)
@pytest.mark.parametrize("name", [HARBOUR.text, HARBOUR.id, HARBOUR])
def test_the_forms_of_an_answer(read: Any, name: str | Question, numbers: Any) -> None:
    found = read({name: numbers})
    assert found.questions == [HARBOUR]
    np.testing.assert_allclose(found.shares, [0.3, 0.7])


@pytest.mark.parametrize(
    "answers",
    [
        {Question(HARBOUR.text, ["No", "Yes"]): [0.7, 0.3]},
        {Question(HARBOUR.text, ["No", "Yes"], HARBOUR.id): [0.7, 0.3]},
        {HARBOUR.text: pd.Series({"No": 70, "Yes": 30})},
        {HARBOUR.text: pd.Series([0.3, 0.7], index=["Yes", "No"])},
    ],
)
def test_numbers_go_to_their_options_in_whatever_order(read: Any, answers: Any) -> None:
    np.testing.assert_allclose(read(answers).shares, [0.3, 0.7])


SIGNS = [
    (["+1", "-1", "other"], "+1 ", 0),
    (["<50", ">50"], " >50", 1),
    (["C", "C++", "C#"], "c", 0),
    (["\u0915\u0940", "\u0915\u093e", "\u0915\u094b\u0908"], "\u0915\u0940 ", 0),
    (["5 to 10", "-5 to 10"], "\u22125 to 10", 1),
]


@pytest.mark.parametrize(("options", "typed", "place"), SIGNS)
def test_signs_and_vowels_tell_options_apart(options: list[str], typed: str, place: int) -> None:
    assert Question("Which?", options).option(typed) == options[place]


def test_options_that_look_alike_are_not_guessed() -> None:
    question = Question("Which?", ["Both/neither", "Both, neither", "One"])
    assert question.option("Both, neither") == "Both, neither"
    with pytest.raises(AnswersError, match="may be 'Both/neither' or 'Both, neither'"):
        question.option("both neither")


def test_percent_signs_say_what_the_numbers_are(read: Any, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(f"question,option,share\n{HARBOUR.text},Yes,0.4%\n{HARBOUR.text},No,0.6%\n")
    with pytest.raises(AnswersError, match="percentages do not sum to 100"):
        read(file)
    file.write_text(f"question,option,share\n{HARBOUR.text},Yes,40%\n{HARBOUR.text},No,60\n")
    with pytest.raises(AnswersError, match="has a percent sign, but"):
        read(file)


def test_one_question_with_its_options_turned_is_one(predictor: Predictor) -> None:
    tea, turned = (Question("Tea?", options) for options in (["Yes", "No"], ["No", "Yes"]))
    with pytest.raises(AnswersError, match="answer one question"):
        predictor.group({tea: [0.5, 0.5], turned: [0.5, 0.5]})
    with pytest.raises(AnswersError, match="is answered already"):
        predictor.more(predictor.group({tea: [0.5, 0.5]}), {turned: [0.5, 0.5]})
    assert predictor.group({tea: [0.5, 0.5]}).ask(1, among=[turned]) == []


def test_numbers_of_people_are_kept(read: Any) -> None:
    found = read({HARBOUR.text: [600, 1400], FERRY.text: {"Often": 5, "Rarely": 0, "Never": 15}})
    np.testing.assert_array_equal(found.respondents, [2000, 20])
    np.testing.assert_allclose(found.shares, [0.3, 0.7, 0.25, 0, 0.75])
    assert found.notes == [
        "read as numbers of people, since they are whole and do not sum to 1 or 100"
    ]
    assert read({HARBOUR.text: [30, 70]}).notes == ["read as percentages"]


def test_records_and_frames(read: Any) -> None:
    records = [
        {"question": HARBOUR.text, "option": "Yes", "share": 0.3},
        {"question_id": FERRY.id, "option": "Never", "share": 1},
        {"question": HARBOUR.text, "option": "No", "share": 0.7},
    ]
    for given in (records, pd.DataFrame(records), iter(records)):
        found = read(given)
        assert found.questions == [HARBOUR, FERRY]
        np.testing.assert_allclose(found.shares, [0.3, 0.7, 0, 0, 1])


def test_a_german_table(read: Any, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    rows = ["Question;Option;Share", f"{HARBOUR.text};Yes;30,5", f"{HARBOUR.text};No;69,5", ";;"]
    file.write_text("\n".join(rows), encoding="cp1252")
    found = read(file)
    np.testing.assert_allclose(found.shares, [0.305, 0.695])
    assert "read as percentages" in found.notes
    assert any("semicolons" in note for note in found.notes)


def test_a_site(read: Any, survey: PreparedSurvey, tmp_path: Path) -> None:
    site = write_site(survey, "North", tmp_path / "north")
    found = read(site.survey.path)
    assert found.questions == QUESTIONS
    expected = np.concatenate([shares_of(0.2, question) for question in QUESTIONS])
    np.testing.assert_allclose(found.shares, expected, atol=1e-6)
    with pytest.raises(SurveyError, match="survey is no site"):
        read(survey.path)


def test_a_new_question_needs_its_options(read: Any) -> None:
    found = read({"Do you like tea?": {"Yes": 0.2, "No": 0.8}, HARBOUR.text: [0.5, 0.5]})
    assert list(found.places) == [-1, 0]
    assert found.notes == [
        "question 'Do you like tea?' is none of the survey's and was read as a new one"
    ]
    with pytest.raises(AnswersError, match="is none of the survey's: name the options"):
        read({"Do you like tea?": [0.2, 0.8]})


NEARLY = "Shoud the harbor change soon?"  # HARBOUR's, with two words misspelt


@pytest.mark.parametrize(
    "answers",
    [
        {NEARLY: {"Yes": 0.3, "No": 0.7}},
        {NEARLY: {"Yess": 0.3, "No": 0.7}},
        [
            {"question": NEARLY, "option": "Yes", "share": 0.3},
            {"question": NEARLY, "option": "No", "share": 0.7},
        ],
        {"c00": {"Yes": 0.3, "No": 0.7}},
        [{"question_id": "c00", "option": "Yes", "share": 1}],
    ],
)
def test_a_misspelt_question_is_refused_with_the_one_that_is_meant(read: Any, answers: Any) -> None:
    known = {"question_id": FERRY.id, "option": "Never", "share": 1}
    beside = [*answers, known] if isinstance(answers, list) else answers | {FERRY.id: [0, 0, 1]}
    for given in (answers, beside):
        with pytest.raises(AnswersError, match=r"'Should the harbour change soon\?'|'c0'"):
            read(given)


def test_several_misspelt_questions_are_named_at_once(read: Any, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    rows = [(FERRY.text, "Never"), (NEARLY, "Yes"), ("Should the musem change soon?", "No")]
    file.write_text("question,option,share\n" + "".join(f"{q},{o},1\n" for q, o in rows))
    with pytest.raises(AnswersError) as error:
        read(file)
    assert [line.partition(": did you mean")[0] for line in str(error.value).splitlines()[1:3]] == [
        f"{file}: data row 2, question 'Shoud the harbor change soon?'",
        f"{file}: data row 3, question 'Should the musem change soon?'",
    ]


NEW = {"question": "Do you like tea?", "option": "Yes", "share": 1}


@pytest.mark.parametrize("word", ["", "no", "FALSE", False, None])
def test_answers_of_which_none_fits_are_refused(read: Any, word: object) -> None:
    with pytest.raises(AnswersError, match="no answer is to a question of the survey, the first"):
        read([NEW | {"new": word}, NEW | {"option": "No", "share": 0, "new": word}])


@pytest.mark.parametrize("word", ["yes", "TRUE", True, 1])
def test_new_questions_that_are_declared_so_are_taken(read: Any, word: object) -> None:
    for text in (NEW["question"], NEARLY):
        options = [{"option": "Yes", "share": 1}, {"option": "No", "share": 0}]
        found = read([{"question": text, "new": word} | each for each in options])
        assert (list(found.places), found.questions[0].text) == ([-1], text)
        found = read({Question(str(text), ["Yes", "No"]): [0.2, 0.8]})
        assert (list(found.places), found.questions[0].text) == ([-1], text)


def test_whether_a_question_is_new_is_a_yes_or_no(read: Any) -> None:
    with pytest.raises(AnswersError, match="record 1 has 'maybe' as 'new': write yes or no"):
        read([NEW | {"new": "maybe"}])


def test_a_table_says_what_it_does_not_say_itself(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(
        f"question;option;count\n{HARBOUR.text};Yes;1.250\n{HARBOUR.text};No;3.750\n",
        encoding="utf-16-le",
    )
    with pytest.raises(SurveyError, match="pass --decimal point if"):
        predictor.group(file)
    people = [
        predictor.group(file, decimal=sign, encoding="utf-16-le").context.respondents
        for sign in ("comma", "point")
    ]
    np.testing.assert_array_equal(people[0], [5000])
    assert people[1] is None  # sums of weights, as 1.25 people are
    more = predictor.more(predictor.group(), file, decimal="comma", encoding="utf-16-le")
    np.testing.assert_array_equal(more.context.respondents, [5000])
    for answers in (None, {HARBOUR.id: [0.5, 0.5]}):
        with pytest.raises(AnswersError, match="and no table was given"):
            predictor.group(answers, decimal="comma")


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({HARBOUR.text: {"Yes": 0.3, "Noo": 0.7}}, "has no option 'Noo': did you mean 'No'"),
        ({HARBOUR.id: {"Yes": 0.3, "Noo": 0.7}}, "has no option 'Noo': did you mean 'No'"),
        ({HARBOUR.text: {"Yes": 0.3, "No": 0.3}}, "do not sum to 1: they sum to 0.6"),
        ({HARBOUR.text: {"Yes": 0.3}}, "do not sum to 1"),
        ({HARBOUR.text: {"Yes": 0, "No": 0}}, "all its numbers are 0"),
        ({HARBOUR.text: {}}, "all its numbers are 0"),
        ({HARBOUR.text: {"Yes": -1, "No": 2}}, "-1 of the option 'Yes' is no share or count"),
        ({HARBOUR.text: {"Yes": float("nan"), "No": 1}}, "nan of the option 'Yes'"),
        ({HARBOUR.text: {"Yes": float("inf"), "No": 1}}, "inf of the option 'Yes'"),
        ({HARBOUR.text: {"Yes": "a third", "No": 1}}, "'a third' of the option 'Yes'"),
        ({HARBOUR.text: {"Yes": True, "No": 0}}, "True of the option 'Yes'"),
        ({HARBOUR.text: {"Yes": 0.5, "yes": 0.5}}, "was given two numbers for the option 'Yes'"),
        ({HARBOUR.text: [0.2, 0.3, 0.5]}, r"has 2 options \('Yes', 'No'\) and was given 3"),
        ({HARBOUR.text: 0.5}, "was given 0.5: give a number for each option"),
        ({HARBOUR.text: "19"}, "was given '19': give a number for each option"),
        ({HARBOUR.text: {0.4, 0.6}}, "give a number for each option"),
        ({HARBOUR.text: {"Yes": 30}}, "and none for some of its options"),
        (
            {Question("Is it so?", HARBOUR.options, HARBOUR.id): [0.5, 0.5]},
            "the id 'c0' is that of the survey's question 'Should the harbour change soon",
        ),
        ({HARBOUR.id: {"Ja": 0.5, "Nein": 0.5}}, "has no option 'Ja'"),
        ({HARBOUR.text: [0.5, 0.5], MUSEUM.text: [50, 50]}, "shares and percentages are mixed"),
        ({HARBOUR.text: [0.5, 0.5], HARBOUR.id: [0.4, 0.6]}, "answer one question"),
        (3, "answers are given as int"),
        ([3], "record 1 is no mapping"),
        ([{"question": HARBOUR.text, "share": 1}], "record 1 needs a question"),
        ([{"question": HARBOUR.text, "option": "Yes"}], "a share or a count"),
        (
            [{"question": HARBOUR.text, "option": "Yes", "share": 0.5}] * 2,
            "record 2 repeats the option 'Yes'",
        ),
        (
            [
                {"question": HARBOUR.text, "option": "Yes", "share": 0.5},
                {"question": HARBOUR.text, "option": "No", "count": 5},
            ],
            "some records have a share and some a count",
        ),
    ],
)
def test_what_is_wrong_is_named(read: Any, answers: Any, fault: str) -> None:
    with pytest.raises(AnswersError, match=fault):
        read(answers)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("question,option\na,b\n", "one of share and count; found: question, option"),
        ("option,share\nYes,1\n", "needs the columns question or question_id"),
        (
            f"question,option,share,group\n{HARBOUR.text},Yes,1,North\n{MUSEUM.text},Yes,1,South\n",
            "answers of 2 groups",
        ),
        (f"question,option,share\n{HARBOUR.text},,1\n", "data row 1 needs a question"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(
    read: Any, tmp_path: Path, text: str, fault: str
) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(text)
    with pytest.raises(AnswersError, match=fault):
        read(file)


def test_options_that_differ_by_punctuation_are_told_apart(read: Any) -> None:
    options = ["Both/neither", "Both, neither", "One"]
    known = read({Question("Tea or coffee at the harbour?", options): [0.2, 0.3, 0.5]})
    np.testing.assert_allclose(known.shares, [0.2, 0.3, 0.5])
