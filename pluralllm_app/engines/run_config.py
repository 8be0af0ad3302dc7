"""The run config of a run: merged from defaults, files and options, or that of an earlier run."""

import os
from pathlib import Path

from rich.console import Console

from pluralllm_app.engines.app_files import APP, check_tree
from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.settings import Scalar, Settings, check_names
from pluralllm_app.settings_files import flatten, parse_overrides, read_defaults, read_toml
from pluralllm_app.survey.info import check_place


def read_run_config(
    survey: Path | None, config: Path | None, overrides: list[str], out: Path | None
) -> dict[str, Scalar]:
    """Merge defaults, a file of settings, single settings, and the paths given as options.

    Where none is given, survey and run directory come from PLURALLLM_SURVEY and PLURALLLM_OUT.

    Raises:
        SettingsError: an unknown name (with the nearest known ones), an unreadable file, or a
            single setting of a strategy that is not chosen.
    """
    check_tree()
    defaults = read_defaults(APP / "pyproject.toml")
    single = parse_overrides(overrides)
    merged = defaults | (flatten(read_toml(config)) if config else {}) | single
    check_names(merged, defaults)
    if merged["purpose"] != "train":
        raise SettingsError("purpose is set by `pluralllm deploy reward` alone: leave it out")
    for key in single:
        # A file may hold options of several strategies; a single one is meant for this run.
        if "." in key and not key.startswith(f"{merged['strategy']}."):
            strategy = key.split(".")[0]
            raise SettingsError(
                f"{key} is for strategy = {strategy!r}, not {merged['strategy']!r}: add "
                f"strategy={strategy}"
            )
    for key, option, variable in (
        ("survey", survey, "PLURALLLM_SURVEY"),
        ("out", out, "PLURALLLM_OUT"),
    ):
        path = str(option or merged[key] or os.environ.get(variable, ""))
        merged[key] = str(Path(path).expanduser().resolve()) if path else ""
    return merged


def read_resumed_config(path: Path) -> dict[str, Scalar]:
    """The run config with which the run in `path` goes on.

    Raises:
        UserError: it holds no run, or a damaged one.
    """
    from pluralllm_app.records.reader import read_run

    path = path.expanduser().resolve()
    info = read_run(path)
    if info is None:
        raise UserError(f"{path} holds no run to resume: it has no run.json")
    return {**info.settings, "resume-from": str(path), "out": "", "expected-nodes": 0}


def settings_with_survey(run_config: dict[str, Scalar], console: Console) -> Settings:
    """The checked settings of a new run. Without a survey, the run config gets the demo survey."""
    settings = Settings.from_config(run_config)
    if settings.survey:
        check_place(settings.survey)
    console.print("Checking settings and survey ...")
    with console.status("checking settings"):
        from pluralllm_app.federation.strategies import make_strategy

        make_strategy(settings)
    if run_config["survey"]:
        return settings
    run_config["survey"] = str(demo_survey(console))
    return Settings.from_config(run_config)
