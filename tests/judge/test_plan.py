"""What a model is asked."""

import json
import shutil
from pathlib import Path

import pytest

from pluralllm_app.errors import SurveyError, UserError
from pluralllm_app.judge.beside import Setting, prepare_setting
from pluralllm_app.judge.plan import Place
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey as make_tiny_survey
from tests.judge.odd_surveys import odd_survey
from tests.support.used import NEW, OFTEN, YES_NO


def test_a_question_is_put_in_each_cyclic_order(setting: Setting) -> None:
    place = next(i for i, question in setting.plan.questions.items() if question.id == "m0")
    prompts = [setting.plan.prompt(Place(place, None, turn)) for turn in range(3)]
    assert [list(prompt.question.options) for prompt in prompts] == [
        ["Often", "Rarely", "Never"],
        ["Rarely", "Never", "Often"],
        ["Never", "Often", "Rarely"],
    ]
    assert prompts[1].text == (
        f"Question: {OFTEN[0].text}\nA. Rarely\nB. Never\nC. Often\n"
        "Answer with the letter of one option.\nAnswer:"
    )


def test_a_persona_stands_before_the_question(setting: Setting) -> None:
    place = Place(next(iter(setting.plan.questions)), "North", 0)
    first, _, rest = setting.plan.prompt(place).text.partition("\n\n")
    assert first == "Answer the question as these people would: North"
    assert rest.startswith("Question: ")


def test_all_is_asked_once_for_each_persona(setting: Setting) -> None:
    every = len(YES_NO) * 2 + len(OFTEN) * 3
    assert len(list(setting.plan.prompts([None]))) == every
    assert len({place for place, _ in setting.plan.prompts([None, *NEW])}) == 3 * every


def test_groups_share_the_questions_that_are_chosen(survey: PreparedSurvey) -> None:
    some = prepare_setting(survey, [], None, most=4, seed=0).plan
    assert [len(some.asked(name)) for name in NEW] == [4, 4]
    assert some.asked("North").tolist() == some.asked("South").tolist()
    assert len(some.questions) == 4
    other = prepare_setting(survey, [], None, most=4, seed=1).plan
    assert other.asked("North").tolist() != some.asked("North").tolist()


def test_named_groups_may_be_train_groups_and_are_no_part_of_their_consensus(
    survey: PreparedSurvey,
) -> None:
    plan = prepare_setting(survey, ["Group 0", "North"], None, most=100, seed=0)
    assert list(plan.plan.groups) == ["Group 0", "North"]
    consensus = next(each for each in plan.beside if each.method.name == "consensus")
    own = plan.plan.groups["Group 0"]
    shares = consensus.predictor.predict(own, own).shares  # type: ignore[union-attr]
    others = [0.1 + 0.8 * trait / 7 for trait in range(1, 8)]
    assert shares[0] == pytest.approx(sum(others) / 7, abs=1e-6)


def test_mistakes_are_named(survey: PreparedSurvey, tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match="no group 'Nort': did you mean 'North'"):
        prepare_setting(survey, ["Nort"], None, 100, 0)
    alone = make_tiny_survey(tmp_path / "alone", train=["A", "B"], evaluation=[])
    with pytest.raises(SurveyError, match="no groups for evaluation: name those"):
        prepare_setting(alone, [], None, 100, 0)
    only = make_tiny_survey(tmp_path / "only", train=[], evaluation=["A", "B"])
    methods = [each.method.name for each in prepare_setting(only, [], None, 100, 0).beside]
    assert methods == ["uniform"]


def test_what_letters_cannot_ask_is_left_out_and_counted(tmp_path: Path) -> None:
    odd = odd_survey(tmp_path / "odd")
    plan = prepare_setting(odd, ["B"], None, 100, 0).plan
    assert plan.left_out == 2
    assert [question.id for question in plan.questions.values()] == ["26"]
    assert len(list(plan.prompts([None]))) == 26
    with pytest.raises(SurveyError, match=r"'A' of .* no question that can be asked"):
        prepare_setting(odd, ["A"], None, 100, 0)


def test_a_predictor_of_the_groups_is_refused(
    survey: PreparedSurvey, trained: Path, tmp_path: Path
) -> None:
    found = prepare_setting(survey, [], trained, 100, 0)
    assert found.predictor is not None
    assert found.predictor.endswith("given 3 answers of each group")
    for name in NEW:
        context, target = found.plan.draws[name]
        assert len(context) == 3
        assert sorted([*context, *target]) == list(range(12))
    with pytest.raises(UserError, match="was trained on Group 1, so that its score"):
        prepare_setting(survey, ["Group 1"], trained, 100, 0)
    copy = tmp_path / "copy"
    shutil.copytree(trained / "best", copy)
    training = json.loads((copy / "training.json").read_text())
    (copy / "training.json").write_text(json.dumps(training | {"context": 12}))
    with pytest.raises(SurveyError, match=r"'North' has answered 12 question.* is given 12: leave"):
        prepare_setting(survey, [], copy, 100, 0)
    with pytest.raises(UserError, match="another survey"):
        prepare_setting(odd_survey(tmp_path / "odd"), ["B"], trained, 100, 0)
