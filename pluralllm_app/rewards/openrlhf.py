"""Rewards in the form of OpenRLHF's remote reward models: queries, prompts and labels.

Written against `openrlhf.utils.agent` of OpenRLHF 0.11.2.
"""

import re
from collections.abc import Sequence
from threading import Lock
from typing import Any

from pluralllm_app.core.wording import many
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards.several import Reward
from pluralllm_app.use.prompts import CLOSING

# What tokenizers put behind an answer: OpenRLHF decodes with these signs.
_ENDS = re.compile(r"(?:\s*(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>))+\s*\Z")


class RewardFunc:
    """`reward_func(queries, prompts, labels)` of a file that `--reward.remote_url` may name.

    >>> reward_func = RewardFunc(GroupReward(group, unread=0.0))
    """

    def __init__(self, reward: Reward) -> None:
        """Wrap a reward, which gives every completion a number: see `unread` of `GroupReward`."""
        self.reward = reward
        self._one_at_a_time = Lock()  # OpenRLHF calls from several threads

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
    ) -> dict[str, Any]:
        """Score completions.

        Args:
            queries: prompts with their completions.
            prompts: alone.
            labels: the id of each question in the survey; None or "" where the prompt has it in
                the form of `rendered`.

        Raises:
            AnswersError: see `GroupReward`; or a completion has no reward.
        """
        texts = _completions(queries, prompts)
        columns = _questions(labels, len(prompts))
        with self._one_at_a_time:
            rewards = _numbers(self.reward(prompts, texts, **columns))
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def _completions(queries: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """What queries say after their prompts, without marks of an end.

    Raises:
        AnswersError: a query does not have its prompt.
    """
    if len(queries) != len(prompts):
        raise AnswersError(
            f"{many(len(queries), 'query', 'queries')} and {many(len(prompts), 'prompt')} were "
            "given: give one for each"
        )
    found = []
    for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True), 1):
        if query.startswith(prompt):
            answer = query[len(prompt) :]
        else:  # a tokenizer may not give back the very same text
            _, closing, answer = query.rpartition(CLOSING)
            if not closing:
                raise AnswersError(f"query {place} does not begin with its prompt")
        found.append(_ENDS.sub("", answer))
    return found


def _questions(labels: Sequence[Any], count: int) -> dict[str, Any]:
    """The columns of `GroupReward` that labels stand for.

    Raises:
        AnswersError: only some have one, or there is another number of them.
    """
    given = [label not in (None, "") for label in labels]
    if not any(given):
        return {}
    if not all(given) or len(given) != count:
        raise AnswersError(
            f"{sum(given)} of {count} prompts have a label: give all the id of their question, or "
            "none"
        )
    return {"question_id": labels}


def _numbers(rewards: Sequence[float | None]) -> list[float]:
    """Rewards, each of which has to be a number.

    Raises:
        AnswersError: one is None.
    """
    if any(reward is None for reward in rewards):
        place = list(rewards).index(None) + 1
        raise AnswersError(
            f"completion {place} has no reward, and this trainer takes none without: say what a "
            "completion earns that names no option or several, as unread=0"
        )
    return [float(reward) for reward in rewards if reward is not None]
