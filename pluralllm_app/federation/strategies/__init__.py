"""Strategies by name: how the server turns a round's updates into new weights.

A strategy is a frozen dataclass of its options, see `learning.base.Strategy`. Whom to train, what
to check, when to evaluate and what to record is the same for all and lies in `federation.rounds`.
To add one: a class registered here, and in pyproject.toml a default for each option it has.
"""

from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any, get_type_hints

from pluralllm_app.errors import SettingsError
from pluralllm_app.federation.secure_settings import check_strategy
from pluralllm_app.federation.strategies.averages import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
)
from pluralllm_app.federation.strategies.robust import (
    Bulyan,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    QFedAvg,
)
from pluralllm_app.learning.base import Strategy
from pluralllm_app.learning.registry import check_learner
from pluralllm_app.settings import (
    Settings,
    check_choice,
    check_names,
    read_section,
    section_keys,
)

STRATEGIES: dict[str, type[Strategy]] = {}


def register(name: str, strategy: type[Strategy]) -> None:
    """Make a strategy available under a name.

    Raises:
        TypeError: it could hold state that is not saved with the run, so that a resumed run would
            differ: it is no frozen dataclass, or a field is no plain option.
    """
    own = vars(strategy).get("__dataclass_params__")
    if not (is_dataclass(strategy) and own and own.frozen):
        raise TypeError(
            f"strategy {name!r} must be a frozen dataclass: what it carries from round to round is "
            "given to `aggregate` and returned by it, or it would be lost when a run is resumed"
        )
    hints = get_type_hints(strategy)
    for field in fields(strategy):
        if hints[field.name] not in (bool, int, float, str):
            raise TypeError(
                f"field {field.name!r} of strategy {name!r} is no option: options are numbers, "
                "texts and truth values"
            )
    STRATEGIES[name] = strategy


for _name, _strategy in (
    ("fedavg", FedAvg),
    ("fedprox", FedProx),
    ("fedavgm", FedAvgM),
    ("fedadam", FedAdam),
    ("fedyogi", FedYogi),
    ("fedadagrad", FedAdagrad),
    ("fedmedian", FedMedian),
    ("fedtrimmedavg", FedTrimmedAvg),
    ("krum", Krum),
    ("multikrum", MultiKrum),
    ("bulyan", Bulyan),
    ("qfedavg", QFedAvg),
):
    register(_name, _strategy)


def make_strategy(settings: Settings) -> Strategy:
    """Make the strategy the settings name, and check that the run's learner takes it.

    Raises:
        SettingsError: an unknown learner or strategy, an option out of range, a quorum below the
            fewest updates the strategy needs, a weighting that it does not use, or secure sums
            where it looks at single updates.
    """
    check_learner(settings)
    name = settings.federation.strategy
    check_choice("strategy", name, STRATEGIES)
    # Those of the others as well: a mistake in them must not lie in wait.
    made: dict[str, Any] = {
        other: read_section(strategy, settings.strategy_options, other)
        for other, strategy in STRATEGIES.items()
    }
    known = (section_keys(strategy, other) for other, strategy in STRATEGIES.items())
    check_names(settings.strategy_options, list(chain.from_iterable(known)))
    strategy: Strategy = made[name]
    quorum = settings.federation.min_train_groups
    if quorum < strategy.least_updates:
        options = ", ".join(f"{name}.{key} = {value}" for key, value in vars(strategy).items())
        raise SettingsError(
            f"{name} with {options} needs at least {strategy.least_updates} updates a round: set "
            f"min-train-groups = {strategy.least_updates} or more"
        )
    if settings.federation.weighting == "uniform" and not strategy.weighs:
        raise SettingsError(
            f"weighting = 'uniform' changes nothing of strategy = {name!r}, which uses no weights: "
            "leave it out"
        )
    check_strategy(settings, strategy)
    return strategy
