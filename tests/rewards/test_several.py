"""Several groups' rewards as one, and what is remembered of them."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards import AdaptiveAlpha, GroupReward, Nash, SeveralGroups, rendered
from pluralllm_app.rewards.several import Rewards
from pluralllm_app.use.group import Group
from tests.support.used import YES_NO


class Fixed:
    """A reward that says what it was told to."""

    def __init__(self, name: str, *calls: Rewards) -> None:
        self.__name__ = name
        self.calls = list(calls)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Rewards:
        return self.calls.pop(0)


def call(reward: SeveralGroups, count: int) -> Rewards:
    return reward(["?"] * count, ["!"] * count)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [0.5, 0.5]),
        ("min", [0.2, 0.5]),
        ("max", [0.8, 0.5]),
        ("nash", [0.4, 0.5]),  # the root of 0.16
        ("adaptive-alpha", [0.5, 0.5]),  # the first call knows of no past
    ],
)
def test_rules(rule: str, expected: list[float]) -> None:
    reward = SeveralGroups([Fixed("a", [0.2, 0.5]), Fixed("b", [0.8, 0.5])], rule)
    assert call(reward, 2) == pytest.approx(expected)
    assert reward.__name__ == f"{rule} of 2"


def test_a_completion_that_one_group_does_not_score_has_no_reward() -> None:
    reward = SeveralGroups([Fixed("a", [0.2, None, 0.6]), Fixed("b", [0.8, 0.5, None])])
    assert call(reward, 3) == [pytest.approx(0.5), None, None]
    assert reward.history.calls == [pytest.approx([0.2, 0.8])]


def test_a_call_in_which_nothing_is_scored_is_not_remembered() -> None:
    reward = SeveralGroups([Fixed("a", [None]), Fixed("b", [None])], "adaptive-alpha")
    assert call(reward, 1) == [None]
    assert reward.history.calls == []


def test_groups_that_fared_worse_weigh_more() -> None:
    """After one call with 0.5 and 0.6, at a temperature of 0.1: weights as e to 1."""
    rewards = [Fixed("a", [0.5], [1.0]), Fixed("b", [0.6], [0.0])]
    reward = SeveralGroups(rewards, AdaptiveAlpha(temperature=0.1))
    call(reward, 1)
    assert call(reward, 1) == pytest.approx([np.e / (1 + np.e)])


def test_the_past_is_forgotten_slowly() -> None:
    """With a memory of 0.5, the means of three calls count 1, 2 and 4 sevenths."""
    rule = AdaptiveAlpha(temperature=1.0, memory=0.5)
    past = np.array([[0.7, 0.0], [0.0, 0.7], [0.7, 0.0]])
    first, second = rule.weights(past)
    assert np.log(second / first) == pytest.approx(0.5 - 0.2)


@dataclass(frozen=True)
class Newest:
    """What the latest call but one earned, and nothing else counts."""

    remembered: int = 2
    name: str = "newest"

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        assert len(past) <= 2
        return rewards[0] if len(past) < 2 else past[0, 0] + 0 * rewards[0]


def test_a_rule_is_given_as_much_of_the_past_as_it_looks_at() -> None:
    """All of it for each completion would take longer and longer."""
    reward = SeveralGroups([Fixed("a", [0.1], [0.2], [0.3], [0.4])], Newest())
    assert [call(reward, 1) for _ in range(4)] == [[0.1], [0.2], [0.1], [0.2]]


@pytest.mark.parametrize(("memory", "remembered"), [(1.0, 1), (0.9, 6), (0.1, 132)])
def test_what_counts_less_than_a_millionth_is_forgotten(memory: float, remembered: int) -> None:
    rule = AdaptiveAlpha(memory=memory)
    assert rule.remembered == remembered
    past = np.random.default_rng(0).random((200, 2))
    assert rule.weights(past).tolist() == rule.weights(past[-remembered:]).tolist()
    other = np.vstack([1000 * past[:-remembered], past[-remembered:]])
    assert rule.weights(other).tolist() == rule.weights(past).tolist()


def test_a_temperature_and_a_memory_have_bounds() -> None:
    with pytest.raises(ValueError, match="temperature"):
        AdaptiveAlpha(temperature=0)
    with pytest.raises(ValueError, match="memory"):
        AdaptiveAlpha(memory=1.5)


def test_a_negative_reward_has_no_geometric_mean() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Nash().combine(np.array([[-0.1], [0.5]]), np.zeros((0, 2)))


def test_groups_and_groups_of_groups(north: Group, south: Group) -> None:
    prompt = rendered(YES_NO[0])
    one, other = GroupReward(north), GroupReward(south)
    inner = SeveralGroups([one, other], "max", name="either")
    outer = SeveralGroups([inner, GroupReward(north)], "min")
    both = [one([prompt] * 2, ["A", "B"]), other([prompt] * 2, ["A", "B"])]
    expected = np.minimum(np.max(both, axis=0), both[0])  # type: ignore[arg-type]
    assert outer([prompt] * 2, ["A", "B"]) == pytest.approx(expected.tolist())
    assert outer.history.groups == ["either", "North"]


def test_what_is_logged(north: Group, south: Group) -> None:
    logged: dict[str, float] = {}
    reward = SeveralGroups([GroupReward(north), GroupReward(south)], "adaptive-alpha")
    reward([rendered(YES_NO[0])] * 2, ["B", "?"], log_metric=logged.__setitem__)
    assert logged["rewards/North/unscored"] == 0.5
    assert logged["groups/North/mean"] > logged["groups/South/mean"]
    assert logged["groups/South/alpha"] == 0.5


def test_a_history_is_saved_and_restored(tmp_path: Path) -> None:
    """What is restored goes on as if nothing had happened."""
    calls = [[0.5, 0.7], [0.3, 0.3], [0.9, 0.8]]

    def fresh(of: list[list[float]]) -> SeveralGroups:
        return SeveralGroups([Fixed("a", *of), Fixed("b", *of[::-1])], "adaptive-alpha")

    whole = fresh(calls)
    expected = [call(whole, 2) for _ in calls][-1]
    begun = fresh(calls)
    call(begun, 2), call(begun, 2)
    begun.history.save(tmp_path / "history.json")
    again = SeveralGroups([Fixed("a", calls[2]), Fixed("b", calls[0])], "adaptive-alpha")
    again.history.restore(tmp_path / "history.json")
    assert call(again, 2) == expected
    assert again.history.calls == whole.history.calls
    assert pickle.loads(pickle.dumps(whole)).history == whole.history


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"groups": ["a", "b"], "calls": [[0.1, float("nan")]]}, "'b' is nan, which is no number"),
        ({"groups": ["a", "b"], "calls": [[0.1, float("inf")]]}, "'b' is inf"),
        ({"groups": ["a", "b"], "calls": [[0.1, 10**400]]}, "'b' is 1000"),
        ({"groups": ["a", "b"], "calls": [[0.1, None]]}, "'b' is None"),
        ({"groups": ["a", "b"], "calls": [[0.1, True]]}, "'b' is True"),
        ({"groups": ["a", "b"], "calls": [[0.1]]}, "needs a mean reward for each of 2 groups"),
        ({"groups": ["b", "a"], "calls": []}, "the history of 'b', 'a', and not of 'a', 'b'"),
        ({"groups": ["a", "b"]}, "no history of rewards"),
        ([], "no history of rewards"),
        ("{", "cannot be read"),
    ],
)
def test_a_history_with_a_fault_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "history.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    reward = SeveralGroups([Fixed("a"), Fixed("b")])
    with pytest.raises(AnswersError, match=message):
        reward.history.restore(file)
    assert reward.history.calls == []


def test_a_history_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnswersError, match="cannot be read"):
        SeveralGroups([Fixed("a")]).history.restore(tmp_path / "none.json")


def test_a_call_that_gives_no_number_is_refused() -> None:
    reward = SeveralGroups([Fixed("a", [float("inf")])])
    with pytest.raises(AnswersError, match="'a' is inf"):
        call(reward, 1)


def test_groups_need_names_of_their_own() -> None:
    with pytest.raises(AnswersError, match="2 groups are called 'a'"):
        SeveralGroups([Fixed("a"), Fixed("a")])
    with pytest.raises(AnswersError, match="no group"):
        SeveralGroups([])
    with pytest.raises(ValueError, match="'median' is no rule"):
        SeveralGroups([Fixed("a")], "median")
