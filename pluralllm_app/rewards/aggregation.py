"""One reward out of several groups' rewards.

Average, minimum and maximum are those of arXiv 2512.08786 (Srewa, Zhao, Elmalaki), and adaptive
weights by the groups' past alignment are its own proposal and that of arXiv 2604.04261 (APPA).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from pluralllm_app.core.segments import Doubles

FORGOTTEN = 1e-6  # of a weight: older calls are left out


class Rule(Protocol):
    """How rewards are put together."""

    @property
    def name(self) -> str:
        """What it is called, in logs and files."""

    @property
    def remembered(self) -> int:
        """How many of the latest calls it looks at."""

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        """Put rewards together.

        Args:
            rewards: [G, N] of each group for each completion.
            past: [T, G] mean reward of each group in each earlier call, the oldest first; calls
                before the latest `remembered` may be left out.

        Returns:
            [N] one for each completion.
        """


@dataclass(frozen=True)
class Mean:
    """All groups count alike, whatever becomes of each."""

    name: str = "mean"
    remembered: ClassVar[int] = 0

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        found: Doubles = rewards.mean(axis=0)
        return found


@dataclass(frozen=True)
class Min:
    """What the group likes that likes it least."""

    name: str = "min"
    remembered: ClassVar[int] = 0

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        found: Doubles = rewards.min(axis=0)
        return found


@dataclass(frozen=True)
class Max:
    """What the group likes that likes it most."""

    name: str = "max"
    remembered: ClassVar[int] = 0

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        found: Doubles = rewards.max(axis=0)
        return found


@dataclass(frozen=True)
class Nash:
    """The geometric mean, Nash's bargaining solution where no agreement is worth 0.

    A percent more for one group is worth a percent more for any other.
    """

    name: str = "nash"
    remembered: ClassVar[int] = 0

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        """See `Rule`; ValueError where a reward is below 0."""
        if (rewards < 0).any():
            raise ValueError("a reward is below 0, and has no logarithm: use another rule")
        with np.errstate(divide="ignore"):  # a reward of 0 for one group is 0 for all
            found: Doubles = np.exp(np.log(rewards).mean(axis=0))
        return found


@dataclass(frozen=True)
class AdaptiveAlpha:
    """A weighted mean, in which groups that had lower rewards so far have larger weights alpha.

    alpha_g is proportional to exp(-h_g / temperature), where h_g is the mean of the group's past
    rewards, in which a call counts (1 - memory) times as much as the one after it. The first call
    weighs all groups alike. A high temperature is `Mean`, a low one follows the worst group.

    The papers weigh groups by their past alignment; APPA does so by a log-sum-exp with a
    temperature and a fairness threshold. Their formulas were not at hand, so that the form of the
    weights, the moving average and both default values are this project's reading. There is no
    threshold: where groups fare alike, the weights are nearly equal by themselves.
    """

    temperature: float = 0.05  # a group that fares this much worse weighs 2.7 times as much
    memory: float = 0.1  # of the moving average: about 1 / memory calls are remembered
    name: str = "adaptive-alpha"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature {self.temperature!r}: give a number above 0")
        if not 0 < self.memory <= 1:
            raise ValueError(f"memory {self.memory!r}: give a number above 0, up to 1")

    @property
    def remembered(self) -> int:
        """Those that count more than `FORGOTTEN`."""
        if self.memory == 1:
            return 1
        return math.ceil(math.log(FORGOTTEN) / math.log1p(-self.memory))

    def weights(self, past: Doubles) -> Doubles:
        """alpha of each group, [G], summing to 1, after calls with mean rewards `past` [T, G]."""
        if not len(past):
            return np.full(past.shape[1], 1 / past.shape[1])
        past = past[-self.remembered :]
        counted = (1 - self.memory) ** np.arange(len(past))[::-1]
        mean = counted @ past / counted.sum()
        raised = np.exp((mean.min() - mean) / self.temperature)
        found: Doubles = raised / raised.sum()
        return found

    def combine(self, rewards: Doubles, past: Doubles) -> Doubles:
        found: Doubles = self.weights(past) @ rewards
        return found


RULES: dict[str, type[Mean] | type[Min] | type[Max] | type[Nash] | type[AdaptiveAlpha]] = {
    "mean": Mean,
    "min": Min,
    "max": Max,
    "nash": Nash,
    "adaptive-alpha": AdaptiveAlpha,
}
