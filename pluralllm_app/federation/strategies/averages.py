"""Averages of the updates, and server optimisers on the average; all they need is a weighted sum.

The sum runs in float64, in the order of the groups' names, so that it does not depend on which
reply came first. Server optimisers see the average only, and do what Flower's classes of the same
names do with it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.segments import Doubles
from pluralllm_app.learning.base import PROXIMAL_MU, Contributions, Strategy
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.settings import Fraction, NonNegative, Positive

_BLOCK = 2**14

Moment = NDArray[Any]


def average(contributions: Contributions) -> dict[str, NDArray[np.float32]]:
    """The weighted mean of the contributions' arrays.

    It keeps the sum and no contribution: those that come one by one need not all fit in memory.
    """
    totals: dict[str, Doubles] = {}
    weights = 0.0
    for contribution in contributions:
        weight = np.float64(contribution.weight)
        for name, array in contribution.arrays.items():
            if name not in totals:
                totals[name] = np.full(array.shape, -0.0)  # -0 + x is x, of either sign
            _add(totals[name].reshape(-1), weight, array.reshape(-1))
        weights += contribution.weight
    return {name: (total / weights).astype(np.float32) for name, total in totals.items()}


def _add(total: Doubles, weight: np.float64, array: NDArray[Any]) -> None:
    """Add `weight` times `array` [P] to `total` [P]."""
    # Block by block: the products of a whole vector in float64 would not stay in the cache.
    for start in range(0, len(total), _BLOCK):
        block = slice(start, start + _BLOCK)
        total[block] += weight * array[block]


@dataclass(frozen=True)
class FedAvg(Strategy):
    """Federated averaging (arXiv 1602.05629)."""

    needs_individual_updates: ClassVar[bool] = False

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        return average(contributions), {}


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedProx (arXiv 1812.06127): groups add mu/2 ||w - w_global||^2 to their loss.

    mu: weight of the proximal term; 0 is FedAvg.
    """

    mu: NonNegative

    @property
    def group_options(self) -> Mapping[str, float]:
        return {PROXIMAL_MU: self.mu}


@dataclass(frozen=True)
class FedAvgM(Strategy):
    """FedAvg with server momentum (arXiv 1909.06335).

    learning_rate, momentum: of the server; 1 and 0 are FedAvg.
    """

    needs_individual_updates: ClassVar[bool] = False
    learning_rate: Positive
    momentum: Fraction

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        mean = average(contributions)
        if (self.learning_rate, self.momentum) == (1, 0):
            return mean, {}
        steps: Arrays = {name: start - mean[name] for name, start in current.items()}
        if carried:
            steps = {name: self.momentum * carried[name] + step for name, step in steps.items()}
        moved = {name: current[name] - self.learning_rate * step for name, step in steps.items()}
        return moved, steps


@dataclass(frozen=True)
class _Adaptive(Strategy):
    """A step of adaptive federated optimisation (arXiv 2003.00295, algorithm 2).

    It carries two moments of each array: of the steps that the average takes, and of their squares.
    """

    needs_individual_updates: ClassVar[bool] = False
    learning_rate: Positive
    tau: Positive

    @abstractmethod
    def _moments(self, first: Moment, second: Moment, step: Moment) -> tuple[Moment, Moment]:
        """Both moments after a step, from those before it, which are 0 at first."""

    def _rate(self, round_number: int) -> float:
        return self.learning_rate

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        mean, rate = average(contributions), self._rate(round_number)
        moved: dict[str, Moment] = {}
        moments: dict[str, Moment] = {}
        for name, start in current.items():
            step = mean[name] - start
            none = np.zeros_like(step)
            first, second = (carried.get(f"{kind}.{name}", none) for kind in ("m_t", "v_t"))
            first, second = self._moments(first, second, step)
            moved[name] = start + rate * first / (np.sqrt(second) + self.tau)
            moments |= {f"m_t.{name}": first, f"v_t.{name}": second}
        return moved, moments


@dataclass(frozen=True)
class FedAdam(_Adaptive):
    """Adam at the server.

    learning_rate, beta_1, beta_2: of the server. tau: smaller adapts more.
    """

    beta_1: Fraction
    beta_2: Fraction

    def _moments(self, first: Moment, second: Moment, step: Moment) -> tuple[Moment, Moment]:
        first = self.beta_1 * first + (1 - self.beta_1) * step
        return first, self._second(second, step**2)

    def _second(self, second: Moment, square: Moment) -> Moment:
        return self.beta_2 * second + (1 - self.beta_2) * square

    def _rate(self, round_number: int) -> float:
        # Both moments start from 0, which this makes up for. As in Flower, the first round counts
        # as the second.
        step = round_number + 1.0
        second, first = (1 - np.power(beta, step) for beta in (self.beta_2, self.beta_1))
        rate: float = self.learning_rate * np.sqrt(second) / first
        return rate


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """Yogi at the server; options as of `FedAdam`."""

    def _second(self, second: Moment, square: Moment) -> Moment:
        second = second - (1 - self.beta_2) * square * np.sign(second - square)
        return second

    def _rate(self, round_number: int) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class FedAdagrad(_Adaptive):
    """Adagrad at the server; options as of `FedAdam`."""

    def _moments(self, first: Moment, second: Moment, step: Moment) -> tuple[Moment, Moment]:
        return step, second + step**2
