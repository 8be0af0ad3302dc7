"""What to try after a run: the commands, with the settings of the run as far as they take them."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from pluralllm_app.engines.app_files import APP
from pluralllm_app.learning.registry import LEARNERS
from pluralllm_app.settings import NO_RESULT, Scalar, Settings
from pluralllm_app.settings_files import parse_overrides, read_defaults

# What `pluralllm compare` does not take, since each of its methods says it itself.
_NOT_COMPARED = ("predictor", "prior", "noise", "epsilon", "delta", "update-norm")


def next_commands(settings: Settings, config: Path | None, overrides: list[str]) -> str:
    """Return a line on what else to try.

    Args:
        settings: of the run.
        config: its file of settings.
        overrides: its single settings.
    """
    federation = settings.federation
    survey = shlex.quote(str(settings.path("survey")))
    given = parse_overrides(overrides)
    single = {key: value for key, value in given.items() if key not in ("survey", "out")}
    run = config
    if "strategy" in LEARNERS[federation.predictor].demands:
        changed = {**single, "predictor": "gpo"}
        run = None  # its rounds are those of another learner
    else:
        other = "fedprox" if federation.strategy == "fedavg" else "fedavg"
        kept = {key: value for key, value in single.items() if "." not in key}
        changed = {**kept, "strategy": other}
    plain = (federation.predictor, federation.prior, federation.noise) == ("gpo", "none", "none")
    compared = {key: value for key, value in single.items() if key not in _NOT_COMPARED}
    return (
        f"Next, try another way: pluralllm run --survey {survey}{_written(run, changed)}, or see "
        f"what simpler ways give: pluralllm compare --survey {survey}"
        f"{_written(config if plain else None, compared)}"
    )


def changed_settings(run_config: Mapping[str, Scalar]) -> list[str]:
    """Return what a run that is gone on with has other than the defaults, as single settings."""
    defaults = read_defaults(APP / "pyproject.toml")
    changed = {
        key: value
        for key, value in run_config.items()
        if key not in NO_RESULT and value != defaults[key]
    }
    return [_pairs(changed)] if changed else []


def _written(config: Path | None, single: Mapping[str, Scalar]) -> str:
    file = f" --config {shlex.quote(str(config))}" if config else ""
    return file + (f" -c {shlex.quote(_pairs(single))}" if single else "")


def _pairs(settings: Mapping[str, Scalar]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in settings.items())


def _value(value: Scalar) -> str:
    words = not isinstance(value, str) or not value or any(map(str.isspace, value))
    return json.dumps(value, ensure_ascii=False) if words else str(value)
