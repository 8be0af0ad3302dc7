"""Rewards out of true answers: the same, to 1e-9, as those of groups that are at hand here."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pluralllm_app import client_app
from pluralllm_app.errors import AnswersError
from pluralllm_app.federation.reward_server import Shares, asked_shares
from pluralllm_app.rewards import GroupReward, SeveralGroups, rendered
from pluralllm_app.rewards.aggregation import RULES, AdaptiveAlpha, Mean, Min
from pluralllm_app.rewards.federated import Choices, Rewarded, combined, read_rollouts, rewarded
from pluralllm_app.rewards.rollouts import COLUMNS, rollouts
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.embedding import Texts
from pluralllm_app.use.questions import Question
from pluralllm_app.use.survey import Survey
from tests.conftest import TRAIN
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
NONE = np.zeros((0, 3))
TOO_FEW = "are of questions that too few groups answered"


@pytest.fixture
def survey(tiny_survey: PreparedSurvey) -> Survey:
    questionnaire = tiny_survey.questionnaire()
    return Survey(questionnaire, Texts(questionnaire.about, 6, None), None)


def at_hand(tiny: PreparedSurvey, survey: Survey, groups: Sequence[str]) -> list[GroupReward]:
    """Rewards without a federation, of groups whose "predictions" are what they truly answered."""

    def of(name: str) -> GroupReward:
        own = tiny.preferences(name)
        shares = dict(zip(own.rows.tolist(), own.shares.tolist(), strict=True))

        def predict(questions: Sequence[Question]) -> list[Any]:
            found = []
            for question in questions:
                first = int(survey.locate(question, []).rows.first_rows[0])
                of_options = {
                    option: shares[first + place] for place, option in enumerate(question.options)
                }
                found.append(SimpleNamespace(question=question, shares=of_options))
            return found

        group: Any = SimpleNamespace(
            name=name,
            survey=survey,
            answered=own.questions.tolist(),
            context=SimpleNamespace(description=None),
            predict=predict,
        )
        return GroupReward(group)

    return [of(name) for name in groups]


def ask(config: Config, choices: Choices, **changes: Scalar) -> Shares:
    config = config | {"purpose": "rewards", "rounds": 1} | changes
    grid = LocalGrid(client_app.app, config, nodes=5)
    return asked_shares(grid, Settings.from_config(config), choices.asked)


IDS = ["q0", "q0", "q1", "q1", "q1", "q0", "q29"]
COMPLETIONS = ["A", "B", "C", "A", "Hm.", "A", "B"]  # Cedar has not answered q29


@pytest.mark.parametrize("rule", list(RULES))
def test_federated_rewards_are_those_of_answers_at_hand(
    config: Config, tiny_survey: PreparedSurvey, survey: Survey, rule: str
) -> None:
    choices = Choices.of(survey, [""] * 7, COMPLETIONS, question_id=IDS)
    past = np.array([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3]])
    local = SeveralGroups(at_hand(tiny_survey, survey, TRAIN), rule)
    local.history.calls = past.tolist()
    expected = local([""] * 6, COMPLETIONS[:6], question_id=IDS[:6])
    found = rewarded(choices, ask(config, choices, privacy="none"), 3, RULES[rule](), past)
    assert found.rewards[:6] == pytest.approx(expected, abs=1e-9)
    # One group has no answer: the reward is that of the other two.
    two = SeveralGroups(at_hand(tiny_survey, survey, TRAIN[:2]), rule)
    two.history.calls = past[:, :2].tolist()
    assert found.rewards[6] == pytest.approx(two([""], ["B"], question_id=["q29"])[0], abs=1e-9)
    assert found.contributors == [3, 3, 3, 3, 0, 3, 2]
    assert found.by_group["Cedar"][6] is None
    (alder,) = at_hand(tiny_survey, survey, ["Alder"])
    assert found.by_group["Alder"] == alder([""] * 7, COMPLETIONS, question_id=IDS)
    assert str(found.counts) == "7 completions, 6 scored; not scored: 1 name no option"


def test_the_mean_by_a_secure_sum_is_the_same(
    config: Config, tiny_survey: PreparedSurvey, survey: Survey
) -> None:
    """Shares are rounded to 2^-60 on their way."""
    choices = Choices.of(survey, [""] * 7, COMPLETIONS, question_id=IDS)
    found = rewarded(choices, ask(config, choices, privacy="secure-sum"), 3, Mean(), NONE)
    local = SeveralGroups(at_hand(tiny_survey, survey, TRAIN))
    expected = local([""] * 6, COMPLETIONS[:6], question_id=IDS[:6])
    assert found.rewards == pytest.approx([*expected, None], abs=1e-9)
    assert found.by_group == {}
    assert found.reasons[6] == TOO_FEW
    lines = [json.loads(line) for line in found.lines().splitlines()]
    assert lines[0] == {"reward": found.rewards[0], "groups": 3}
    assert lines[4] == {"reward": None, "groups": 0, "why": "name no option"}
    assert lines[6] == {"reward": None, "groups": 2, "why": TOO_FEW}


def test_completions_are_read_as_for_a_group_at_hand(survey: Survey) -> None:
    """The order of a prompt's options is what its letters follow."""
    question = survey.questions[1]
    turned = Question(question.text, question.options[::-1])
    prompts = [rendered(turned)] * 4 + [rendered(question)]
    completions = ["A", "Answer: C", "A or B", "x" * 1_000_000, "A"]
    choices = Choices.of(survey, prompts, completions)
    assert choices.rows.tolist() == [4, 2, -1, -1, 2]  # the rows of question 1 are 2, 3 and 4
    assert choices.asked.tolist() == [2, 4]
    assert str(choices.counts).endswith("1 name several options, 1 are too long to be an answer")


@pytest.mark.parametrize(
    ("prompts", "columns", "error"),
    [
        (["Hello!"], {}, "the prompt of completion 1 asks no question that can be read"),
        ([""], {"question_id": ["q99"]}, "'q99' is none of the survey's"),
        (
            [rendered(Question("Is it new?", ["Yes", "No"]))],
            {},
            "'Is it new.*none of the survey's: no group can have answered it",
        ),
        (["", ""], {"question_id": ["q0", "q0"]}, "2 prompts and 1 completions were given"),
    ],
)
def test_what_is_no_known_question_is_an_error(
    survey: Survey, prompts: list[str], columns: dict[str, Any], error: str
) -> None:
    with pytest.raises(AnswersError, match=error):
        Choices.of(survey, prompts, ["A"], **columns)


def test_a_prompt_without_a_question_has_no_reward(survey: Survey) -> None:
    choices = Choices.of(survey, ["", ""], ["A", "A"], question_id=["q0", None])
    assert choices.rows.tolist() == [0, -1]
    found = rewarded(choices, Shares(list(TRAIN), [3], [1.5], None), 3, Mean(), NONE)
    assert found.rewards == [0.5, None]
    assert found.reasons[1] == "are of prompts without a question"


def test_groups_that_have_not_answered_are_left_out_of_a_rule() -> None:
    rewards = np.array([[0.2, 0.4, np.nan], [0.6, np.nan, np.nan]])
    assert combined(rewards, Min(), np.zeros((0, 2))).tolist()[:2] == [0.2, 0.4]
    assert np.isnan(combined(rewards, Min(), np.zeros((0, 2)))[2])
    weights = AdaptiveAlpha(temperature=0.1).weights(np.array([[0.1, 0.2]]))  # e : 1
    found = combined(rewards, AdaptiveAlpha(temperature=0.1), np.array([[0.1, 0.2]]))
    assert found[0] == pytest.approx(weights @ [0.2, 0.6])
    assert found[1] == 0.4


def test_a_group_without_any_answer_has_no_mean_reward() -> None:
    found = Rewarded([0.1], ["scored"], [1], {"Alder": [0.1], "Birch": [None]})
    with pytest.raises(AnswersError, match="'Birch' has answered none of these questions"):
        found.means()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "holds no rollouts: give a line for each completion"),
        ("\n\n", "holds no rollouts"),
        ("{", "line 1 is no JSON"),
        ('{"prompt": "a", "completion": "b"}\n[]', "line 2 needs a prompt and a completion"),
        ('{"prompt": "a", "completions": ["b"]}', "line 1 needs a prompt and a completion"),
        (
            '{"prompt": "a", "completion": "b", "question_id": "q0"}\n'
            '{"prompt": "a", "completion": "b"}',
            "rollout 2 has no question_id or question, and others have",
        ),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, content: str, error: str
) -> None:
    file = tmp_path / "rollouts.jsonl"
    file.write_text(content, "utf-8")
    with pytest.raises(AnswersError, match=error):
        read_rollouts(file)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"prompt": "a", "question": "b", "options": 5}, "the options of completion 1 are 5: give"),
        ({"prompt": "a", "question": "b", "options": "[" * 10**5}, "1 are one text: give a list"),
        ({"prompt": [{"content": [{"type": "text"}]}]}, "content is neither text nor parts"),
    ],
)
def test_a_rollout_of_another_form_is_refused(line: dict[str, object], error: str) -> None:
    columns = {name: [value] for name, value in line.items() if name != "prompt"}
    with pytest.raises(AnswersError, match=error):
        rollouts([line["prompt"]], ["A"], {**dict.fromkeys(COLUMNS), **columns})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "none", tmp_path, tmp_path / "odd"):
        with pytest.raises(AnswersError, match="cannot be read"):
            read_rollouts(file)


def test_a_line_may_hold_other_ends_of_lines(tmp_path: Path, survey: Survey) -> None:
    file = tmp_path / "rollouts.jsonl"
    rows = [{"prompt": "", "completion": "\u2028A\u2028", "question_id": "q0"}] * 2
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    read = read_rollouts(file)
    assert len(read["prompts"]) == 2
    assert read["question"] is None
    assert Choices.of(survey, **read).rows.tolist() == [0, 0]
