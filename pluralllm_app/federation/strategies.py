"""Strategies by name: Flower's own classes, their options checked.

A strategy only turns a round's updates into new weights. Whom to train, what to check, when to
evaluate and what to record is the same for all and lies in `federation.rounds`. To add one: an
entry in STRATEGIES, and a default in pyproject.toml for each option it has.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import SettingsError
from pluralllm_app.federation.flower_compat import STRATEGY_STATE
from pluralllm_app.federation.messages import (
    ARRAYS,
    CONFIG,
    JS_DIVERGENCE,
    METRICS,
    WEIGHTS,
    Weights,
    record_of,
    record_to_weights,
    weights_to_record,
)
from pluralllm_app.settings import (
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    Positive,
    Range,
    Settings,
    check_choice,
    check_names,
    read_section,
    section_keys,
)

_BLOCK = 2**14

WEIGHT = "weight"  # set by the server on each update, from the roster and `weighting`


class Float64Average(flower.FedAvg):
    """FedAvg whose weighted sum runs in float64, in the order of the replies.

    It keeps the sum, and no reply: those that come one by one need not all fit in memory. As a base
    after one of Flower's classes it replaces the average that class starts from.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        weights: list[float] = []
        total = np.empty(0)
        for reply in replies:
            weight = cast(float, record_of(reply.content, METRICS, MetricRecord)[WEIGHT])
            update = record_to_weights(record_of(reply.content, ARRAYS, ArrayRecord))
            if not weights:
                total = np.full(len(update), -0.0)  # -0 + x is x, of either sign
            _add(total, np.float64(weight), update)
            weights.append(weight)
        if not weights:
            return None, None
        total /= sum(weights)
        return weights_to_record(total.astype(np.float32)), MetricRecord()


def _add(total: Doubles, weight: np.float64, update: Weights) -> None:
    """Add `weight` times `update` [P] to `total` [P]."""
    # Block by block: the products of a whole vector in float64 would not stay in the cache.
    for start in range(0, len(total), _BLOCK):
        block = slice(start, start + _BLOCK)
        total[block] += weight * update[block]


class FedProx(flower.FedProx, Float64Average):
    """FedProx (arXiv 1812.06127); clients add the proximal term to their loss."""


class FedAvgM(flower.FedAvgM, Float64Average):
    """FedAvg with server momentum (arXiv 1909.06335)."""


class FedAdam(flower.FedAdam, Float64Average):
    """FedAdam (arXiv 2003.00295)."""


class FedYogi(flower.FedYogi, Float64Average):
    """FedYogi (arXiv 2003.00295)."""


class FedAdagrad(flower.FedAdagrad, Float64Average):
    """FedAdagrad (arXiv 2003.00295)."""


@dataclass(frozen=True)
class NoOptions:
    """Options of a strategy that has none."""


@dataclass(frozen=True)
class FedProxOptions:
    """mu: weight of the proximal term mu/2 ||w - w_global||^2; 0 is FedAvg."""

    mu: NonNegative


@dataclass(frozen=True)
class FedAvgMOptions:
    """Server learning rate and momentum; 1 and 0 are FedAvg."""

    learning_rate: Positive
    momentum: Fraction


@dataclass(frozen=True)
class AdaptiveOptions:
    """Server learning rate, decay of the moments, and tau: smaller adapts more."""

    learning_rate: Positive
    beta_1: Fraction
    beta_2: Fraction
    tau: Positive


@dataclass(frozen=True)
class FedAdagradOptions:
    """Server learning rate, and tau: smaller adapts more."""

    learning_rate: Positive
    tau: Positive


@dataclass(frozen=True)
class TrimOptions:
    """fraction: share of the updates cut at each end, weight by weight."""

    fraction: Annotated[float, Range(0, 0.5, below=True)]


@dataclass(frozen=True)
class ByzantineOptions:
    """malicious: how many groups may send anything."""

    malicious: CountOrZero


@dataclass(frozen=True)
class MultiKrumOptions:
    """malicious: how many groups may send anything; selected: how many updates are averaged."""

    malicious: CountOrZero
    selected: Count


@dataclass(frozen=True)
class QFedAvgOptions:
    """q-FedAvg (arXiv 1905.10497, algorithm 2).

    q: 0 is FedAvg, larger lifts the groups with the largest loss. lipschitz: the L of the rule;
    the step shrinks as q L ||update||^2 / loss grows above 1.
    """

    q: NonNegative
    lipschitz: Positive


Common = dict[str, Any]  # arguments every Flower strategy takes


@dataclass(frozen=True)
class Entry:
    """How to make one strategy, and the fewest updates a round for which it is defined.

    `weighs`: its result depends on the updates' weights.
    """

    options: type[Any]
    make: Callable[[Any, Common], Strategy]
    least_updates: Callable[[Any], int] = lambda options: 1
    weighs: bool = True


def _adaptive(kind: type[FedAdam | FedYogi]) -> Callable[[AdaptiveOptions, Common], Strategy]:
    return lambda o, common: kind(
        eta=o.learning_rate, beta_1=o.beta_1, beta_2=o.beta_2, tau=o.tau, **common
    )


STRATEGIES: dict[str, Entry] = {
    "fedavg": Entry(NoOptions, lambda o, common: Float64Average(**common)),
    "fedprox": Entry(FedProxOptions, lambda o, common: FedProx(proximal_mu=o.mu, **common)),
    "fedavgm": Entry(
        FedAvgMOptions,
        lambda o, common: FedAvgM(
            server_learning_rate=o.learning_rate, server_momentum=o.momentum, **common
        ),
    ),
    "fedadam": Entry(AdaptiveOptions, _adaptive(FedAdam)),
    "fedyogi": Entry(AdaptiveOptions, _adaptive(FedYogi)),
    "fedadagrad": Entry(
        FedAdagradOptions,
        lambda o, common: FedAdagrad(eta=o.learning_rate, tau=o.tau, **common),
    ),
    "fedmedian": Entry(NoOptions, lambda o, common: flower.FedMedian(**common), weighs=False),
    "fedtrimmedavg": Entry(
        TrimOptions,
        lambda o, common: flower.FedTrimmedAvg(beta=o.fraction, **common),
        weighs=False,
    ),
    "krum": Entry(
        ByzantineOptions,
        lambda o, common: flower.Krum(num_malicious_nodes=o.malicious, **common),
        lambda o: 2 * o.malicious + 3,
        weighs=False,
    ),
    "multikrum": Entry(
        MultiKrumOptions,
        lambda o, common: flower.MultiKrum(
            num_malicious_nodes=o.malicious, num_nodes_to_select=o.selected, **common
        ),
        lambda o: max(2 * o.malicious + 3, o.selected + o.malicious),
    ),
    "bulyan": Entry(
        ByzantineOptions,
        lambda o, common: flower.Bulyan(num_malicious_nodes=o.malicious, **common),
        lambda o: 4 * o.malicious + 3,
        weighs=False,
    ),
    # It raises the loss to a power, so it gets the divergence, which is never negative. Flower
    # derives L from the rate of plain gradient descent on the clients; ours may run Adam.
    "qfedavg": Entry(
        QFedAvgOptions,
        lambda o, common: flower.QFedAvg(
            q=o.q, client_learning_rate=1 / o.lipschitz, train_loss_key=JS_DIVERGENCE, **common
        ),
        weighs=False,
    ),
}


def make_strategy(settings: Settings) -> Strategy:
    """Make the strategy the settings name.

    Raises:
        SettingsError: an unknown strategy, an option out of range, a quorum below the fewest
            updates the strategy needs, or a weighting that it does not use.
    """
    name = settings.federation.strategy
    check_choice("strategy", name, STRATEGIES)
    # Those of the others as well: a mistake in them must not lie in wait.
    read = {
        other: read_section(entry.options, settings.strategy_options, other)
        for other, entry in STRATEGIES.items()
    }
    known = (section_keys(entry.options, other) for other, entry in STRATEGIES.items())
    check_names(settings.strategy_options, list(chain.from_iterable(known)))
    entry, options = STRATEGIES[name], read[name]
    least, quorum = entry.least_updates(options), settings.federation.min_train_groups
    if quorum < least:
        raise SettingsError(
            f"{name} with {_shown(options, name)} needs at least {least} updates a round: set "
            f"min-train-groups = {least} or more"
        )
    if settings.federation.weighting == "uniform" and not entry.weighs:
        raise SettingsError(
            f"weighting = 'uniform' changes nothing of strategy = {name!r}, which uses no weights: "
            "leave it out"
        )
    common: Common = {
        "min_train_nodes": 1,
        "min_available_nodes": 1,
        "weighted_by_key": WEIGHT,
        "arrayrecord_key": ARRAYS,
        "configrecord_key": CONFIG,
    }
    return entry.make(options, common)


def carried(strategy: Strategy) -> dict[str, NDArray[Any]]:
    """What a strategy carries from round to round, for `restore`; {} if nothing."""
    found = {name: getattr(strategy, name, None) for name in STRATEGY_STATE}
    return {
        name: value[WEIGHTS] if isinstance(value, dict) else value[0]
        for name, value in found.items()
        if value is not None
    }


def restore(strategy: Strategy, state: Mapping[str, NDArray[Any]]) -> None:
    """Give a new strategy what an earlier one carried."""
    for name, value in state.items():
        setattr(strategy, name, [value] if name == "momentum_vector" else {WEIGHTS: value})


def _shown(options: Any, name: str) -> str:
    return ", ".join(f"{name}.{key} = {value}" for key, value in vars(options).items())
