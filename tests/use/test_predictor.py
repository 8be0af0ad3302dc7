"""A saved predictor is loaded with its questionnaire, and predicts a group by texts."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import huggingface_hub
import numpy as np
import pytest

from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.predictors.base import LEVELS
from pluralllm_app.predictors.factors.descriptions import regressor
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.saved import load_predictor
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question
from tests.support.used import OFTEN, QUESTIONS, YES_NO, answers_of, make_survey, shares_of

TEA = Question("Is tea better than coffee?", ["Yes", "No", "Both"])
CHANGE = Question("Should the lighthouse change soon?", ["Yes", "No"])


@pytest.fixture(scope="module", params=["factors_run", "gpo_run", "refined_run"])
def run(request: pytest.FixtureRequest) -> Path:
    """A run directory of each kind that a federation learns."""
    found: Path = request.getfixturevalue(request.param)
    return found


def test_it_predicts_what_the_saved_predictor_does(run: Path, survey: PreparedSurvey) -> None:
    north = survey.preferences("North")
    context, target = np.arange(0, 12, 2), np.arange(1, 12, 2)
    task = north.task(context, target)
    direct = load_predictor(run / "best").predict(task.context, task.target)
    predictor = Predictor.from_pretrained(run)
    known = answers_of("North", [QUESTIONS[place] for place in context])
    description = survey.description("North") if north.description is not None else None
    found = predictor.group(known, description=description).predict(
        [QUESTIONS[place].text for place in target]
    )
    shares = [share for answer in found for share in answer.shares.values()]
    np.testing.assert_allclose(shares, direct.shares, atol=1e-5)
    assert [answer.question for answer in found] == [QUESTIONS[place] for place in target]
    if direct.intervals is not None:
        assert set(found[0].intervals) == set(LEVELS)
        low = [low for answer in found for low, _ in answer.intervals[LEVELS[0]].values()]
        np.testing.assert_allclose(low, direct.intervals[0, 0], atol=1e-5)
    if direct.deviation is not None:
        assert found[0].deviation is not None


def test_a_run_gives_its_best_predictor(factors_run: Path, predictor: Predictor) -> None:
    by_directory = Predictor.from_pretrained(str(factors_run / "best"))
    for name, array in by_directory.model.arrays().items():
        np.testing.assert_array_equal(array, predictor.model.arrays()[name])
    assert predictor.questions == QUESTIONS
    assert predictor.about.survey == "Changes"


def test_it_knows_what_groups_are_like(predictor: Predictor) -> None:
    south = predictor.group(answers_of("South", [*YES_NO[:2], *OFTEN[:1]]))
    found = south.predict(YES_NO[3].text)[0]
    assert found["Yes"] == pytest.approx(shares_of(0.8, YES_NO[3])[0], abs=0.05)
    low, high = found.intervals[0.95]["Yes"]
    assert low < found["Yes"] < high
    assert sum(found.shares.values()) == pytest.approx(1)


def test_without_a_question_all_are_predicted_that_are_not_answered(predictor: Predictor) -> None:
    found = predictor.group(answers_of("South", YES_NO)).predict()
    assert [answer.question for answer in found] == OFTEN
    everything = predictor.group(answers_of("South", QUESTIONS))
    assert list(everything.predict()) == []


def test_a_thousand_questions_at_once_are_as_one_by_one(predictor: Predictor) -> None:
    group = predictor.group(answers_of("North", YES_NO[:2]))
    asked = [QUESTIONS[number % len(QUESTIONS)].text for number in range(1000)]
    found = group.predict(asked)
    assert [answer.question.text for answer in found] == asked
    for number in (0, 7, 999):
        alone = group.predict(asked[number])[0]
        assert list(found[number].shares.values()) == pytest.approx(list(alone.shares.values()))


@pytest.mark.parametrize("kind", ["factors_run", "gpo_run", "refined_run"])
def test_new_questions_are_predicted_beside_known_ones(
    kind: str, request: pytest.FixtureRequest
) -> None:
    predictor = Predictor.from_pretrained(request.getfixturevalue(kind))
    group = predictor.group(answers_of("South", YES_NO[:4]))
    alone = group.predict(OFTEN[1].text)[0]
    found = group.predict([TEA, OFTEN[1].text, CHANGE])
    assert [answer.question for answer in found] == [TEA, OFTEN[1], CHANGE]
    assert [answer.known for answer in found] == [False, True, False]
    assert list(found[1].shares.values()) == pytest.approx(list(alone.shares.values()), abs=1e-6)
    for answer in found:
        assert sum(answer.shares.values()) == pytest.approx(1)


def test_what_is_unlike_all_known_questions_is_less_certain(predictor: Predictor) -> None:
    group = predictor.group(answers_of("South", YES_NO[:4]))
    like, unlike = group.predict([CHANGE, Question(TEA.text, ["Yes", "No"])])
    assert like["Yes"] > 0.6
    widths = [high - low for low, high in (each.intervals[0.8]["Yes"] for each in (like, unlike))]
    assert widths[0] < widths[1]


def test_answers_to_new_questions_count(predictor: Predictor) -> None:
    before = predictor.group().predict(YES_NO[0].text)[0]
    group = predictor.group({CHANGE: {"Yes": 0.95, "No": 0.05}})
    assert any("was read as a new one" in note for note in group.notes)
    assert group.predict(YES_NO[0].text)[0]["Yes"] > before["Yes"]


def test_a_group_without_answers_is_the_average_one(predictor: Predictor) -> None:
    group = predictor.group()
    assert group.notes == ["no answers were given: predictions rest on the average of all groups"]
    assert group.predict(YES_NO[0].text)[0]["Yes"] == pytest.approx(0.5, abs=0.1)


def test_a_description_is_embedded_as_the_survey_s_are(
    predictor: Predictor, survey: PreparedSurvey
) -> None:
    group = predictor.group(description="  South ")
    np.testing.assert_array_equal(
        group.context.description, survey.preferences("South").description
    )
    # Names such as "Group 3" tell nothing, and the predictor has learned that.
    assert group.compare(predictor.group()).alignment == pytest.approx(1)
    assert group.notes == [
        "the description changes nothing: this predictor has learned nothing from descriptions",
        "no answers were given: predictions rest on the average of all groups",
    ]
    for text, fault in (("  ", "is empty"), ("x" * 1001, "has 1,001 characters")):
        with pytest.raises(AnswersError, match=fault):
            predictor.group(description=text)


def test_a_description_that_tells_something_is_heeded(
    factors_run: Path, survey: PreparedSurvey
) -> None:
    saved = load_predictor(factors_run / "best")
    assert isinstance(saved, FactorsPredictor)
    south = regressor(survey.preferences("South").description)
    saved.prior = replace(saved.prior, weights=np.outer(south, np.ones(len(saved.prior.variance))))
    predictor = Predictor(saved, survey.questionnaire())
    group = predictor.group(description="South")
    assert group.notes == ["no answers were given: predictions rest on what the description says"]
    assert group.compare(predictor.group()).alignment < 0.99


def test_a_network_needs_an_answer(gpo_run: Path) -> None:
    with pytest.raises(AnswersError, match="needs at least 1 answer"):
        Predictor.from_pretrained(gpo_run).group()


def test_more_answers_are_added(predictor: Predictor) -> None:
    first = predictor.group(answers_of("South", YES_NO[:2]), name="South")
    group = predictor.more(first, answers_of("South", OFTEN[:1]))
    at_once = predictor.group(answers_of("South", [*YES_NO[:2], *OFTEN[:1]]))
    asked = YES_NO[4].text
    assert group.name == "South"
    assert group.predict(asked)[0].shares == pytest.approx(at_once.predict(asked)[0].shares)
    with pytest.raises(AnswersError, match="is answered already"):
        predictor.more(group, answers_of("South", YES_NO[1:2]))


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        ("Should the harbor change soon?", r"is none of the survey's.*the harbour change"),
        ("xyz", "give it options to ask it as a new one$"),
        (12, "12 is no question"),
        ([None], "None is no question"),
        (Question("Tea?", ["Yes"]), r"has 1 option: give it at least two"),
        (Question("Tea?", []), "give it options to ask it as a new one"),
        (Question("Tea?", ["Yes", "Yes"]), "has the option 'Yes' twice"),
        (Question("Tea?", ["Yes", "YES"]), "differ by capitals only"),
        (Question("Tea?", ["Yes", " "]), "has an empty option"),
        (Question(" ", ["Yes", "No"]), "has no text"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(
    predictor: Predictor, question: str | Question, fault: str
) -> None:
    with pytest.raises(AnswersError, match=fault):
        predictor.group().predict(question)


def test_other_options_than_the_survey_s_are_noted(predictor: Predictor) -> None:
    group = predictor.group()
    turned = Question(YES_NO[0].text, ["No", "Yes"])
    assert list(group.predict(turned)[0].shares) == ["Yes", "No"]
    assert "has in the survey the options 'Yes', 'No'" in group.notes[-1]
    other = Question(YES_NO[0].text, ["Aye", "Nay"])
    answer = group.predict(other)[0]
    assert (answer.known, answer.question.options) == (False, ("Aye", "Nay"))
    assert "was read as a new question: the survey's has the options 'Yes', 'No'" in group.notes[-1]


def test_a_question_that_is_nearly_the_survey_s_is_noted(predictor: Predictor) -> None:
    group = predictor.group()
    nearly = "Shuold the harbour change soon?"
    assert not group.predict(Question(nearly, ["Yes", "No"]))[0].known
    assert f"new question, but is nearly the survey's {YES_NO[0].text!r}" in group.notes[-1]
    for name, meant in ((nearly, YES_NO[0].text), ("c00", "c0")):
        with pytest.raises(AnswersError, match=f"did you mean '{re.escape(meant)}'"):
            group.predict(name)


def test_a_text_typed_differently_is_noted(predictor: Predictor) -> None:
    group = predictor.group()
    assert group.predict("should the HARBOUR change soon")[0].question == YES_NO[0]
    assert "was read as the survey's 'Should the harbour change soon?'" in group.notes[-1]


def test_options_the_embedder_cannot_tell_apart_are_refused(predictor: Predictor) -> None:
    fault = r"hashing, has one vector for the options 'a b c' and 'a b, c' of question 'Which\?'"
    with pytest.raises(PredictorError, match=fault):
        predictor.group().predict(Question("Which?", ["a b c", "a  b, c"]))


def test_another_embedder_is_refused(factors_run: Path, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey", embedder="sha256:0123")
    predictor = Predictor.from_pretrained(factors_run / "best", questionnaire=survey.path)
    group = predictor.group(answers_of("North", YES_NO[:1]))
    assert len(group.predict(OFTEN[0].text)) == 1
    with pytest.raises(PredictorError, match=r"sha256:0123.*`--embedder`.*need none"):
        group.predict(TEA)
    named = Predictor.from_pretrained(
        factors_run / "best", questionnaire=survey.path, embedder="hashing"
    )
    with pytest.raises(PredictorError, match=r"embedded by sha256:0123: vectors of hashing"):
        named.group(description="People of the north")


def test_what_has_no_questionnaire_is_told_so(
    factors_run: Path, survey: PreparedSurvey, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(factors_run / "best" / name, tmp_path)
    with pytest.raises(PredictorError, match=r"has no questionnaire.json.*as `questionnaire`"):
        Predictor.from_pretrained(tmp_path)
    for place in (survey.path, factors_run, factors_run / "best"):
        found = Predictor.from_pretrained(tmp_path, questionnaire=place)
        assert found.questions == QUESTIONS


def test_the_questionnaire_of_another_survey_is_refused(
    factors_run: Path, tiny_survey: PreparedSurvey
) -> None:
    with pytest.raises(PredictorError, match="is of another survey than the one that"):
        Predictor.from_pretrained(factors_run, questionnaire=tiny_survey.path)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("factors_run", "for a survey with 30 options"), ("gpo_run", "reads vectors of 64 numbers")],
)
def test_a_questionnaire_that_does_not_fit_is_refused(
    kind: str, fault: str, tiny_survey: PreparedSurvey, request: pytest.FixtureRequest
) -> None:
    saved = load_predictor(request.getfixturevalue(kind) / "best")
    with pytest.raises(PredictorError, match=f"of another survey: this predictor .*{fault}"):
        Predictor(saved, tiny_survey.questionnaire())


def test_a_name_is_one_of_the_hub(factors_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, name: str) -> str:
        if not (factors_run / "best" / name).exists():
            raise huggingface_hub.errors.RemoteEntryNotFoundError(
                "no such file", response=httpx.Response(404, request=httpx.Request("GET", "hub:"))
            )
        return str(factors_run / "best" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    predictor = Predictor.from_pretrained("someone/changes")
    assert predictor.questions == QUESTIONS
    assert predictor.training is not None


def test_many_new_answers_are_counted(predictor: Predictor) -> None:
    many = {Question(f"Tea at {hour}?", ["Yes", "No"]): [0.9, 0.1] for hour in range(24)}
    group = predictor.group(many)
    assert len(group.notes) == 1
    assert "24 questions are none of the survey's and were read as new ones" in group.notes[0]
    assert group.predict(Question("Tea at 24?", ["Yes", "No"]))[0]["Yes"] > 0.7


def test_the_card_says_what_the_run_says(factors_run: Path, predictor: Predictor) -> None:
    run = json.loads((factors_run / "run.json").read_text())
    lines = (factors_run / "rounds.jsonl").read_text().splitlines()
    best = json.loads(lines[run["best_round"]])["evaluation"]["roles"]["evaluation"]
    card = predictor.card()
    assert list(card) == ["Survey", "Training", "Scores", "Limits"]
    assert "Licence of the data: none" in card["Survey"]
    assert f"round {run['best_round']}" in card["Training"][0]
    assert "Trained on 8 groups: Group 0" in card["Training"][1]
    told = next(line for line in card["Scores"] if line.startswith("2 groups never trained on"))
    assert f"mean {best['mean']:.3f}, worst {best['worst']:.3f}" in told
    written = (factors_run / "best" / "README.md").read_text()
    assert all(line in written for lines in card.values() for line in lines)
