"""Strategies that look at single updates: robust to some that are wrong, or fair to some groups.

The robust ones are Flower's own classes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from pluralllm_app.learning.base import JS_DIVERGENCE, Contributions, Strategy
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.settings import Count, CountOrZero, NonNegative, Positive, Range


@dataclass(frozen=True)
class _Individual(Strategy):
    """Flower's strategy of the same name; it carries nothing from round to round."""

    needs_individual_updates: ClassVar[bool] = True
    weighs: ClassVar[bool] = False

    def _options(self) -> dict[str, float]:
        """Those of Flower's class."""
        return {}

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        # Not at the top: checking an option needs no Flower, which takes a second to import.
        from pluralllm_app.federation.strategies.flower import aggregate, named

        rule = named(type(self).__name__, self._options())
        return aggregate(rule, round_number, contributions), {}


@dataclass(frozen=True)
class FedMedian(_Individual):
    """The median of the updates, weight by weight (arXiv 1803.01498)."""


@dataclass(frozen=True)
class FedTrimmedAvg(_Individual):
    """The mean of the updates without the extreme ones, weight by weight (arXiv 1803.01498).

    fraction: share of the updates cut at each end.
    """

    fraction: Annotated[float, Range(0, 0.5, below=True)]

    def _options(self) -> dict[str, float]:
        return {"beta": self.fraction}


@dataclass(frozen=True)
class Krum(_Individual):
    """The update that is nearest to the others (Blanchard et al. 2017).

    malicious: how many groups may send anything.
    """

    malicious: CountOrZero

    @property
    def least_updates(self) -> int:
        return 2 * self.malicious + 3

    def _options(self) -> dict[str, float]:
        return {"num_malicious_nodes": self.malicious}


@dataclass(frozen=True)
class MultiKrum(_Individual):
    """The mean of the updates that are nearest to the others (Blanchard et al. 2017).

    malicious: how many groups may send anything. selected: how many updates are averaged.
    """

    weighs: ClassVar[bool] = True
    malicious: CountOrZero
    selected: Count

    @property
    def least_updates(self) -> int:
        return max(2 * self.malicious + 3, self.selected + self.malicious)

    def _options(self) -> dict[str, float]:
        return {"num_malicious_nodes": self.malicious, "num_nodes_to_select": self.selected}


@dataclass(frozen=True)
class Bulyan(_Individual):
    """Krum several times, then a trimmed mean (arXiv 1802.07927).

    malicious: how many groups may send anything.
    """

    malicious: CountOrZero

    @property
    def least_updates(self) -> int:
        return 4 * self.malicious + 3

    def _options(self) -> dict[str, float]:
        return {"num_malicious_nodes": self.malicious}


@dataclass(frozen=True)
class QFedAvg(Strategy):
    """q-FedAvg (arXiv 1905.10497, algorithm 2).

    q: 0 is FedAvg, larger lifts the groups with the largest loss. lipschitz: the L of the rule; the
    step shrinks as q L ||update||^2 / loss grows above 1.

    Its loss F is the groups' divergence, which unlike their loss is never negative.
    """

    needs_individual_updates: ClassVar[bool] = True
    weighs: ClassVar[bool] = False
    q: NonNegative
    lipschitz: Positive

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        steps = {name: np.zeros_like(start) for name, start in current.items()}
        total = 0.0
        for each in contributions:
            loss = each.metrics[JS_DIVERGENCE] + 1e-10  # a power below 0 needs more than 0
            lift = np.float_power(loss, self.q)
            squares = 0.0
            for name, start in current.items():
                gradient = self.lipschitz * (start - each.arrays[name])
                squares += float(np.sum(np.square(gradient)))
                steps[name] += (lift * gradient).astype(gradient.dtype)
            total += self.q * np.float_power(loss, self.q - 1) * squares + self.lipschitz * lift
        return {name: start - steps[name] / total for name, start in current.items()}, {}
