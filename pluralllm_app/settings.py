"""The settings of a run as frozen dataclasses, checked; the one module that knows their names.

Keys are in kebab-case in `[tool.flwr.app.config]` of pyproject.toml, which holds every default, and
in snake_case here. The options of a strategy have its name as a prefix (``fedprox.mu``) and belong
to `federation.strategies`.
"""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SettingsError
from pluralllm_app.settings_privacy import check_privacy

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Scalar = bool | int | float | str

# Settings that change no result.
NO_RESULT = (
    *("survey", "out", "resume-from", "questionnaire", "tracker", "checkpoint-every"),
    *("expected-nodes", "start-timeout", "round-timeout", "grace-period"),
)
# Settings that came after the first runs were recorded, and what those runs did.
ADDED_LATER: dict[str, Scalar] = {
    "precision": "auto",
    "predictor": "gpo",
    "questionnaire": "",
    "prior": "none",
    "weight-cap": 1.0,
    "grace-period": 0.0,
    "privacy": "none",
    "secure-threshold": 0,
    "min-contributors": 3,
    "noise": "none",
    "epsilon": 0.0,
    "delta": 1e-6,
    "scores": "per-group",
    "update-norm": 0.0,
    "purpose": "train",
}
_LARGEST = 2**63 - 1  # Flower carries whole numbers of 64 bits
Section = TypeVar("Section", bound="DataclassInstance")


@dataclass(frozen=True)
class Range:
    """Bounds of a number: `low` inclusive; `high` inclusive, or exclusive if `below`."""

    low: float
    high: float = math.inf
    below: bool = False

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return self.low <= value < self.high if self.below else self.low <= value <= self.high

    def demand(self, value: float) -> str:
        """What a `value` outside of it must be."""
        low = "above 0" if 0 < self.low < 1e-300 else f"at least {self.low:g}"
        if math.isinf(self.high) or (self.high == _LARGEST and value < self.low):
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.high:g}"


# Settings that are paths, and the environment variables that stand in for them.
PATHS = {
    "survey": "PLURALLLM_SURVEY",
    "out": "PLURALLLM_OUT",
    "resume-from": "",
    "questionnaire": "",
}

Positive = Annotated[float, Range(math.nextafter(0, 1))]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, below=True)]
PositiveFraction = Annotated[float, Range(math.nextafter(0, 1), 1, below=True)]
Delta = Annotated[float, Range(math.nextafter(0, 1), 1e-3)]  # a larger one promises too little
Count = Annotated[int, Range(1, _LARGEST)]
CountOrZero = Annotated[int, Range(0, _LARGEST)]


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the predictor, see `gpo.network.GPO`."""

    d_model: Count
    emb_depth: Count
    dim_feedforward: Count
    nhead: Count
    num_layers: Count


@dataclass(frozen=True)
class TrainingSettings:
    """Local training of one group in one round, see `local_steps.train_group`."""

    local_steps: Count
    tasks_per_step: Count
    context_min: Count
    context_max: Count
    target_min: Count
    target_max: Count
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NonNegative
    momentum: Fraction
    schedule: Literal["constant", "cosine"]
    schedule_steps: CountOrZero
    clip_norm: NonNegative
    client_optimizer_state: Literal["reset", "keep"]
    client_threads: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class SplitSettings:
    """Which questions are kept from training, see `preferences.split_questions`."""

    held_out_fraction: PositiveFraction
    reserved_fraction: Fraction
    evaluation_seed: CountOrZero


@dataclass(frozen=True)
class EvaluationSettings:
    """When and on how many contexts groups are scored, see `evaluation.evaluate`."""

    evaluate_every: Count
    evaluation_draws: Count
    evaluation_context: Count


@dataclass(frozen=True)
class FederationSettings:
    """The server's side of a run."""

    seed: CountOrZero
    purpose: Literal["train", "rewards"]  # see `reward_server`
    rounds: Count
    predictor: str  # one of `learning.registry.LEARNERS`
    prior: Literal["none", "factors"]  # of predictor = gpo
    strategy: str  # one of `federation.strategies.STRATEGIES`
    weighting: Literal["questions", "uniform"]
    weight_cap: Annotated[float, Range(math.nextafter(0, 1), 1)]
    privacy: Literal["none", "secure-sum"]
    secure_threshold: CountOrZero  # of secure sums; 0: two thirds of the groups
    min_contributors: Annotated[int, Range(2, _LARGEST)]  # to a row of factors' secure sums
    noise: Literal["none", "respondents", "groups"]
    epsilon: Annotated[float, Range(0, 1000)]  # of noise; 0 without it
    delta: Delta
    update_norm: NonNegative  # L2, of noise = groups; 0 without it
    scores: Literal["per-group", "mean"]
    train_groups_per_round: CountOrZero
    min_train_groups: Count
    expected_nodes: CountOrZero
    start_timeout: Positive
    round_timeout: Positive
    grace_period: NonNegative
    checkpoint_every: Count
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"]


SECTIONS: dict[str, Any] = {
    "model": ModelSettings,
    "training": TrainingSettings,
    "split": SplitSettings,
    "evaluation": EvaluationSettings,
    "federation": FederationSettings,
}


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    `survey` and `out` are absolute paths: app processes run in Flower's working directory.
    """

    survey: Path | None  # None: only a node's own config names it
    questionnaire: Path | None  # of a server whose learner needs the questions without a survey
    out: Path | None
    resume: bool  # go on with the run in `out`
    model: ModelSettings
    training: TrainingSettings
    split: SplitSettings
    evaluation: EvaluationSettings
    federation: FederationSettings
    strategy_options: Mapping[str, Scalar]  # every dotted key, e.g. {"fedprox.mu": 0.01, ...}

    def path(self, key: Literal["survey", "out"]) -> Path:
        """`survey` or `out`; raises SettingsError where it is not set."""
        path: Path | None = getattr(self, key)
        if path is None:
            raise SettingsError(f'{key} is not set: give {key}="/absolute/path" or ${PATHS[key]}')
        return path

    @classmethod
    def from_config(cls, config: Mapping[str, Scalar]) -> "Settings":
        """Check a whole run config: unknown and missing names, types, ranges, combinations.

        Empty `survey` and `out` are taken from the environment variables PLURALLLM_SURVEY and
        PLURALLLM_OUT, since `flwr run` takes either a file of settings or single ones. A run goes
        on in its own directory: `resume-from` stands for `out` as well.

        Raises:
            SettingsError: naming the key and the remedy.
        """
        options = {key: value for key, value in config.items() if "." in key}
        known = [key for kind in SECTIONS.values() for key in section_keys(kind)]
        check_names(config, [*PATHS, *known, *options])
        survey, out, resumed, questionnaire = (_absolute_path(config, key) for key in PATHS)
        if resumed and config["out"] and out != resumed:
            raise SettingsError(
                f"out = {str(out)!r} is not resume-from = {str(resumed)!r}: a run goes on in its "
                "own directory, leave out empty"
            )
        settings = cls(
            survey=survey,
            questionnaire=questionnaire,
            out=resumed or out,
            resume=resumed is not None,
            strategy_options=options,
            **{name: read_section(kind, config) for name, kind in SECTIONS.items()},
        )
        _check_combinations(settings)
        return settings


def section_keys(kind: "type[DataclassInstance]", prefix: str = "") -> list[str]:
    start = f"{prefix}." if prefix else ""
    return [start + field.name.replace("_", "-") for field in fields(kind)]


def check_names(config: Mapping[str, Scalar], known: Collection[str]) -> None:
    """Refuse keys that are unknown (with the nearest known ones) or missing."""
    for key in config:
        if key not in known:
            raise SettingsError(f"unknown setting {key!r}: {did_you_mean(key, known)}")
    missing = [key for key in known if key not in config]
    if missing:
        raise SettingsError(f"the run config lacks {', '.join(missing)}; see pyproject.toml")


def read_section(kind: type[Section], config: Mapping[str, Scalar], prefix: str = "") -> Section:
    """Read and check the fields of dataclass `kind`, keys prefixed with ``prefix.`` if given."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    keys = section_keys(kind, prefix)
    check_names({key: config[key] for key in keys if key in config}, keys)
    return kind(
        **{
            name: _checked(key, config[key], hints[name])
            for name, key in zip(names, keys, strict=True)
        }
    )


def allowed(hint: Any) -> str:
    """What a setting of a type may be, in words; "" for any text."""
    if get_origin(hint) is Literal:
        return ", ".join(get_args(hint))
    hint, *bounds = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind = {int: "whole number", float: "number", str: "", bool: "true or false"}[hint]
    return " ".join([kind, *(bound.demand(-math.inf) for bound in bounds)])


def check_choice(key: str, value: Scalar, choices: Collection[str]) -> None:
    """Refuse a value that is none of `choices`, suggesting the nearest."""
    if value not in choices:
        raise SettingsError(
            f"{key} = {value!r} does not exist: {did_you_mean(str(value), choices)}"
        )


def _checked(key: str, value: Scalar, hint: Any) -> Scalar:
    if get_origin(hint) is Literal:
        check_choice(key, value, get_args(hint))
        return value
    bounds = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
    accepted: type | UnionType = int | float if hint is float else hint
    if not isinstance(value, accepted) or isinstance(value, bool):
        kind = {int: "a whole number", float: "a number", str: "a text"}[hint]
        raise SettingsError(f"{key} = {value!r} must be {kind}")
    if bounds and isinstance(value, int | float) and value not in bounds:
        finite = "" if math.isfinite(value) else "finite, "
        raise SettingsError(f"{key} = {value} must be {finite}{bounds.demand(value)}")
    return float(value) if hint is float else value


def _absolute_path(config: Mapping[str, Scalar], key: str) -> Path | None:
    text = str(config[key]) or os.environ.get(PATHS[key], "")
    if not text:
        return None
    path = Path(text)
    if not path.is_absolute():
        raise SettingsError(
            f"{key} = {text!r} must be an absolute path: Flower runs the app elsewhere"
        )
    return path


def _check_combinations(settings: Settings) -> None:
    training, federation = settings.training, settings.federation
    for kind, low, high in (
        ("context", training.context_min, training.context_max),
        ("target", training.target_min, training.target_max),
    ):
        if low > high:
            raise SettingsError(f"{kind}-min = {low} is above {kind}-max = {high}")
    if settings.model.d_model % settings.model.nhead:
        raise SettingsError(
            f"d-model = {settings.model.d_model} is not a multiple of nhead = "
            f"{settings.model.nhead}"
        )
    if training.momentum and training.optimizer != "sgd":
        raise SettingsError(f"momentum is for optimizer = 'sgd', not {training.optimizer!r}")
    stateless = training.optimizer == "sgd" and not training.momentum
    if training.client_optimizer_state == "keep" and stateless:
        raise SettingsError(
            "client-optimizer-state = 'keep' keeps nothing of sgd without momentum: set momentum, "
            "or client-optimizer-state = 'reset'"
        )
    if training.schedule_steps and training.schedule == "constant":
        raise SettingsError("schedule-steps is for schedule = 'cosine'; set it to 0")
    per_round, quorum = federation.train_groups_per_round, federation.min_train_groups
    if per_round and per_round < quorum:
        raise SettingsError(
            f"train-groups-per-round = {per_round} can never reach min-train-groups = {quorum}"
        )
    check_privacy(asdict(federation))
