"""Several groups' rewards as one."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards.aggregation import RULES, AdaptiveAlpha, Rule
from pluralllm_app.rewards.group_reward import Rewards
from pluralllm_app.rewards.history import History


class Reward(Protocol):
    """A reward function as TRL calls it: `GroupReward`, `SeveralGroups`, or one of your own."""

    __name__: str

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> Rewards:
        """A reward for each completion, or None."""


class SeveralGroups:
    """One reward of several: of groups, or of several groups each.

    A completion has a reward where all of them give it one. The mean rewards of each call are kept
    in `history`, which `AdaptiveAlpha` weighs groups by; save it beside a trainer's checkpoint.

    >>> reward = SeveralGroups([GroupReward(north), GroupReward(south)], "adaptive-alpha")
    >>> reward(prompts, completions)
    [0.52, 0.31, None]
    >>> reward.history.save(Path("history.json"))
    """

    def __init__(
        self, rewards: Sequence[Reward], rule: str | Rule = "mean", name: str | None = None
    ) -> None:
        """Put rewards together.

        Args:
            rewards: of groups that are called differently.
            rule: name of one of `RULES`, or one with values of its own.
            name: for logs; one of the rule and the number of groups if not given.

        Raises:
            AnswersError: there is no reward, or two groups have one name.
            ValueError: there is no such rule.
        """
        names = [reward.__name__ for reward in rewards]
        if not names:
            raise AnswersError("there is no group to reward: give at least one")
        if twice := [each for each in names if names.count(each) > 1]:
            raise AnswersError(
                f"{len(twice)} groups are called {twice[0]!r}: give each a `name` of its own"
            )
        if isinstance(rule, str):
            if rule not in RULES:
                raise ValueError(f"{rule!r} is no rule: known are {', '.join(RULES)}")
            rule = RULES[rule]()
        self.rewards = list(rewards)
        self.rule: Rule = rule
        self.history = History(names)
        self.__name__ = name or f"{rule.name} of {len(names)}"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> Rewards:
        """Score completions; arguments and errors are those of `GroupReward`."""
        each = [
            reward(prompts, completions, log_metric=log_metric, **columns)
            for reward in self.rewards
        ]
        rewards = np.array(each, np.float64)  # None as NaN
        scored = ~np.isnan(rewards).any(axis=0)
        found: Rewards = [None] * len(completions)
        if not scored.any():
            return found
        past = self.history.latest(self.rule.remembered)
        combined = self.rule.combine(rewards[:, scored], past)
        for place, reward in zip(np.flatnonzero(scored).tolist(), combined.tolist(), strict=True):
            found[place] = reward
        means = rewards[:, scored].mean(axis=1)
        self.history.add(means)
        if log_metric is not None:
            for name, mean in zip(self.history.groups, means.tolist(), strict=True):
                log_metric(f"groups/{name}/mean", mean)
            if isinstance(self.rule, AdaptiveAlpha):
                for name, weight in zip(
                    self.history.groups, self.rule.weights(past).tolist(), strict=True
                ):
                    log_metric(f"groups/{name}/alpha", weight)
        return found

    def __repr__(self) -> str:
        return f"<{self.__name__}: {', '.join(self.history.groups)}>"
