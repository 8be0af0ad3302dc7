"""Averages of the updates, and server optimisers on the average; all they need is a weighted sum.

The sum runs in float64, in the order of the groups' names, so that it does not depend on which
reply came first. Server optimisers are Flower's own classes, which see the average only.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from pluralllm_app.core.segments import Doubles
from pluralllm_app.federation.messages import arrays_to_record
from pluralllm_app.federation.strategies.flower import plain_arrays
from pluralllm_app.learning.base import Contribution, Strategy
from pluralllm_app.learning.gpo import PROXIMAL_MU
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.settings import Fraction, NonNegative, Positive

_BLOCK = 2**14

AdaptiveRule = flower.FedAdam | flower.FedYogi | flower.FedAdagrad


def average(contributions: Iterable[Contribution]) -> dict[str, NDArray[np.float32]]:
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
        self,
        round_number: int,
        current: Arrays,
        carried: Arrays,
        contributions: Iterable[Contribution],
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


class _Averaged(flower.FedAvg):
    """What Flower's server optimisers start from: the average, in place of messages."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Any]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return arrays_to_record(average(replies)), None


class _Momentum(flower.FedAvgM, _Averaged):
    pass


class _Adam(flower.FedAdam, _Averaged):
    pass


class _Yogi(flower.FedYogi, _Averaged):
    pass


class _Adagrad(flower.FedAdagrad, _Averaged):
    pass


@dataclass(frozen=True)
class FedAvgM(Strategy):
    """FedAvg with server momentum (arXiv 1909.06335).

    learning_rate, momentum: of the server; 1 and 0 are FedAvg.
    """

    needs_individual_updates: ClassVar[bool] = False
    learning_rate: Positive
    momentum: Fraction

    def aggregate(
        self,
        round_number: int,
        current: Arrays,
        carried: Arrays,
        contributions: Iterable[Contribution],
    ) -> tuple[Arrays, Arrays]:
        rule = _Momentum(server_learning_rate=self.learning_rate, server_momentum=self.momentum)
        rule.current_arrays = arrays_to_record(current)
        rule.momentum_vector = [carried[name] for name in current] if carried else None
        record, _ = rule.aggregate_train(round_number, contributions)  # type: ignore[arg-type]
        momentum = rule.momentum_vector or []
        return plain_arrays(record), dict(zip(current, momentum, strict=bool(momentum)))


@dataclass(frozen=True)
class _Adaptive(Strategy):
    """A step of adaptive federated optimisation (arXiv 2003.00295), with its two moments."""

    needs_individual_updates: ClassVar[bool] = False

    @abstractmethod
    def _rule(self) -> AdaptiveRule:
        """Flower's class with the options."""

    def aggregate(
        self,
        round_number: int,
        current: Arrays,
        carried: Arrays,
        contributions: Iterable[Contribution],
    ) -> tuple[Arrays, Arrays]:
        rule = self._rule()
        rule.current_arrays = dict(current)
        if carried:
            rule.m_t = {name: carried[f"m_t.{name}"] for name in current}
            rule.v_t = {name: carried[f"v_t.{name}"] for name in current}
        record, _ = rule.aggregate_train(round_number, contributions)  # type: ignore[arg-type]
        moments = {f"m_t.{name}": moment for name, moment in (rule.m_t or {}).items()}
        moments |= {f"v_t.{name}": moment for name, moment in (rule.v_t or {}).items()}
        return plain_arrays(record), moments


@dataclass(frozen=True)
class FedAdam(_Adaptive):
    """Adam at the server.

    learning_rate, beta_1, beta_2: of the server. tau: smaller adapts more.
    """

    kind: ClassVar[type[flower.FedAdam | flower.FedYogi]] = _Adam
    learning_rate: Positive
    beta_1: Fraction
    beta_2: Fraction
    tau: Positive

    def _rule(self) -> AdaptiveRule:
        return self.kind(
            eta=self.learning_rate, beta_1=self.beta_1, beta_2=self.beta_2, tau=self.tau
        )


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """Yogi at the server; options as of `FedAdam`."""

    kind: ClassVar[type[flower.FedAdam | flower.FedYogi]] = _Yogi


@dataclass(frozen=True)
class FedAdagrad(_Adaptive):
    """Adagrad at the server; options as of `FedAdam`."""

    learning_rate: Positive
    tau: Positive

    def _rule(self) -> AdaptiveRule:
        return _Adagrad(eta=self.learning_rate, tau=self.tau)
