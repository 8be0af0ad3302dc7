"""What a group's predictions look like, how two groups compare, and what to ask next."""

import pytest

from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.use.predicted import PredictedAnswer
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question
from tests.support.used import OFTEN, QUESTIONS, YES_NO, answers_of


def test_an_answer_reads_as_bars() -> None:
    question = Question("Tea?", ["Yes, of course", "No"])
    answer = PredictedAnswer(
        question,
        {"Yes, of course": 0.7, "No": 0.3},
        None,
        {0.8: {"Yes, of course": (0.5, 0.8), "No": (0.2, 0.5)}},
    )
    assert answer.lines("#=-") == [
        "Tea?",
        "  Yes, of course   70%  " + "#" * 15 + "=" * 6 + "-" * 3 + " " * 6 + "   50% to 80%",
        "  No               30%  " + "#" * 6 + "=" * 3 + "-" * 6 + " " * 15 + "   20% to 50%",
    ]
    plain = PredictedAnswer(question, answer.shares, None, {})
    assert str(plain).splitlines()[1] == "  Yes, of course   70%  " + "\u2588" * 21
    assert plain.rows()[1] == {
        "question_id": None,
        "question": "Tea?",
        "new": False,
        "option": "No",
        "share": 0.3,
        "deviation": None,
    }
    assert answer.rows()[0]["low_80"] == 0.5


def test_answers_are_a_sequence(predictor: Predictor) -> None:
    found = predictor.group(answers_of("North", YES_NO)).predict()
    assert len(found) == len(OFTEN)
    assert found[1:3][0] is found[1]
    assert len(found.rows()) == 3 * len(OFTEN)
    assert str(found).count("\n\n") == len(OFTEN) - 1


def test_groups_compare(predictor: Predictor) -> None:
    north, south = (
        predictor.group(answers_of(name, YES_NO[:3]), name=name) for name in ("North", "South")
    )
    apart = north.compare(south)
    assert len(apart.differences) == len(QUESTIONS)
    distances = [each.distance for each in apart.differences]
    assert distances == sorted(distances, reverse=True)
    mean = sum(distances) / len(distances)
    assert apart.alignment == pytest.approx(1 - mean)
    assert "North and South: alignment 0." in str(apart)
    same = north.compare(north, [YES_NO[0].text])
    assert same.alignment == pytest.approx(1)
    assert apart.alignment < 0.9


def test_groups_of_two_predictors_do_not_compare(predictor: Predictor, factors_run: str) -> None:
    other = Predictor.from_pretrained(factors_run).group()
    with pytest.raises(ValueError, match="of two predictors"):
        predictor.group().compare(other)


@pytest.mark.parametrize("run", ["factors_run", "refined_run"])
def test_questions_to_ask(run: str, request: pytest.FixtureRequest) -> None:
    predictor = Predictor.from_pretrained(request.getfixturevalue(run))
    group = predictor.group(answers_of("South", YES_NO[:2]))
    chosen = group.ask(3)
    assert len({each.question for each in chosen}) == 3
    assert not {each.question for each in chosen} & {*YES_NO[:2]}
    some = group.ask(2, among=[YES_NO[1], YES_NO[2].text, OFTEN[0]], about=[OFTEN[5].text])
    assert {each.question for each in some} == {YES_NO[2], OFTEN[0]}
    assert group.ask(2, among=YES_NO[:2]) == []


def test_a_question_is_asked_once(predictor: Predictor) -> None:
    one = YES_NO[0]
    chosen = predictor.group().ask(4, among=[one.id, one.text, one])
    assert [each.question for each in chosen] == [one]


def test_alignment_takes_shares_only(predictor: Predictor) -> None:
    found = predictor.group().predict([YES_NO[0], YES_NO[1]])
    assert 0.5 < found.alignment([[0.5, 0.5], [0.5, 0.5]]) < 1
    for wrong in ([[50, 50], [50, 50]], [[0.5, 0.5]], [[0.25] * 4], [[0.5, 0.4], [0.5, 0.5]]):
        with pytest.raises(ValueError, match="the true shares must be one for each option"):
            found.alignment(wrong)


def test_costs_are_of_every_candidate(predictor: Predictor) -> None:
    group = predictor.group()
    dear = {str(question.id): 1.0 for question in QUESTIONS}
    first = group.ask(1, costs=dear)[0].question
    assert group.ask(1, costs=dear | {str(first.id): 1e6})[0].question != first
    with pytest.raises(AnswersError, match="has no cost"):
        group.ask(1, costs={"c0": 1.0})
    with pytest.raises(AnswersError, match="costs 0: give a number above 0"):
        group.ask(1, costs=dear | {"c0": 0})
    with pytest.raises(AnswersError, match="costs '3': give a number above 0"):
        group.ask(1, costs=dear | {"c0": "3"})
    with pytest.raises(AnswersError, match="has two costs: keep one"):
        group.ask(1, costs=dear | {YES_NO[0].text: 7})
    by_question = group.ask(1, among=YES_NO[:2], costs={YES_NO[0]: 1, YES_NO[1].text: 1e9})
    assert by_question[0].question == YES_NO[0]
    with pytest.raises(AnswersError, match="0 questions cannot be chosen"):
        group.ask(0)


def test_a_network_alone_cannot_tell_what_to_ask(gpo_run: str) -> None:
    group = Predictor.from_pretrained(gpo_run).group(answers_of("South", YES_NO[:2]))
    with pytest.raises(PredictorError, match="predictor = factors"):
        group.ask(1)


def test_a_known_answer_is_told(predictor: Predictor) -> None:
    group = predictor.group(answers_of("North", YES_NO[:2]))
    group.predict(YES_NO[2])
    assert not any("is known" in note for note in group.notes)
    group.predict(YES_NO[:3])
    group.predict(YES_NO[1])
    told = [note for note in group.notes if "is known: shown is the prediction" in note]
    assert len(told) == 2
    assert told[0].startswith("the group's answer to 2 of these questions is known")


def test_answers_that_do_not_fit_are_told(predictor: Predictor) -> None:
    true = answers_of("North", QUESTIONS)
    assert predictor.group(answers_of("North", QUESTIONS[:9])).held is None
    # Those of another group in every other question: no half of them tells the other.
    mixed = true | answers_of("South", QUESTIONS[1::2])
    fits, fails = predictor.group(true).held, predictor.group(mixed).held
    assert fits is not None
    assert fails is not None
    assert fits > 0.8 > 0.5 > fails
