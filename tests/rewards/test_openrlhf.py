"""Queries, prompts and labels as OpenRLHF has them, without its package: that needs a GPU's."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards import GroupReward, rendered
from pluralllm_app.rewards.openrlhf import RewardFunc
from pluralllm_app.use.group import Group
from tests.support.used import YES_NO

PROMPT = f"<|im_start|>user\n{rendered(YES_NO[0])}<|im_end|>\n<|im_start|>assistant\n"


def test_queries_are_prompts_with_completions(north: Group) -> None:
    reward = GroupReward(north, unread=0.0)
    expected = reward([rendered(YES_NO[0])] * 2, ["A", "B"])
    said = RewardFunc(reward)(
        [f"{PROMPT}A<|im_end|>", f"<s>{PROMPT} B</s>", f"{PROMPT}Well"],
        [PROMPT] * 3,
        [None, "", None],
    )
    assert said == {"rewards": [*expected, 0.0], "scores": [*expected, 0.0], "extra_logs": {}}


def test_labels_are_ids_of_questions(north: Group) -> None:
    reward = GroupReward(north, unread=0.0)
    said = RewardFunc(reward)(["Well? no"], ["Well?"], [YES_NO[1].id])
    assert said["rewards"] == reward(["?"], ["No"], question_id=[YES_NO[1].id])


def test_it_is_called_from_several_threads() -> None:
    """A reward, which counts and remembers, is called by one of them at a time."""
    inside: list[int] = []

    class Slow:
        __name__ = "slow"

        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            inside.append(1)
            time.sleep(0.001)  # others come in, unless they are kept out
            return [float(inside.pop() + len(inside))]

    reward = RewardFunc(Slow())
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: reward(["Well? A"], ["Well?"], [""]), range(40)))
    assert {said["rewards"][0] for said in found} == {1.0}


@pytest.mark.parametrize(
    ("queries", "labels", "message"),
    [
        (["Well? no"] * 2, ["c0", "c0"], "2 queries and 1 prompt were"),
        (["What? no"], ["c0"], "query 1 does not begin with its prompt"),
        (["Well? no"], ["c0", "c1"], "2 of 1 prompts have a label"),
        (["Well? no"], ["no such id"], "none of the survey's"),
        (["Well? no idea"], ["c0"], "completion 1 has no reward.* unread=0"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    north: Group, queries: Any, labels: Any, message: str
) -> None:
    with pytest.raises(AnswersError, match=message):
        RewardFunc(GroupReward(north))(queries, ["Well?"], labels)
