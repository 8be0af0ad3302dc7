"""`pluralllm run`: check everything that can be checked, run the simulation, show what happens."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pluralllm_app.core.terminal import Terminal
from pluralllm_app.engines.app_files import APP
from pluralllm_app.engines.follow import follow
from pluralllm_app.engines.preflight import preflight
from pluralllm_app.engines.resources import Resources
from pluralllm_app.engines.run_config import (
    read_resumed_config,
    read_run_config,
    settings_with_survey,
)
from pluralllm_app.engines.run_directory import LOG, claimed, make_run_directory, reopen
from pluralllm_app.errors import UserError
from pluralllm_app.settings import Scalar, Settings

if TYPE_CHECKING:
    from pluralllm_app.records.schema import RoundEntry


def run(
    survey: Path | None,
    config: Path | None,
    overrides: list[str],
    out: Path | None,
    resume: Path | None,
    actors: int | None,
    console: Console,
) -> None:
    """Run the federation of a survey in Flower's simulation and print its results.

    Args:
        survey: prepared survey; None: the demo.
        config: file of settings.
        overrides: single settings.
        out: run directory to make; None: a new one in runs/.
        resume: run directory to go on with; survey, config, overrides and out are then as they
            were.
        actors: client processes; None: as many as the CPUs hold.
        console: where the run is shown.

    Raises:
        UserError: anything the user can mend; the run directory, if it was begun, says so too.
    """
    if resume:
        if survey or config or overrides or out:
            raise UserError("--resume takes the run's own survey and settings: give it alone")
        console.print(f"Going on with {resume} ...", markup=False, highlight=False, soft_wrap=True)
        run_config = read_resumed_config(resume)
        settings = Settings.from_config(run_config)
        from pluralllm_app.engines.hints import changed_settings

        overrides = changed_settings(run_config)
    else:
        run_config = read_run_config(survey, config, overrides, out)
        settings = settings_with_survey(run_config, console)
    with console.status("checking settings and survey"):
        resources = preflight(settings, actors)
    run_config["expected-nodes"] = resources.supernodes  # they join one after another
    if not resume:
        run_config["out"] = str(make_run_directory(run_config))
        settings = Settings.from_config(run_config)
    out = settings.path("out")
    with claimed(out):
        if resume:
            reopen(out, run_config)
        console.print(f"Flower simulation: {resources}")
        from pluralllm_app.learning.registry import caution  # it takes numpy to import

        if said := caution(settings):
            console.print(said, style="yellow", highlight=False)
        rounds = _run_simulation(settings, run_config, resources, console)
    from pluralllm_app.engines.hints import next_commands
    from pluralllm_app.records.console import print_results

    print_results(out, rounds, console, next_commands(settings, config, overrides))
    if said := _advice(settings):
        console.print(said, soft_wrap=True, highlight=False, markup=False)


def _run_simulation(
    settings: Settings, run_config: Mapping[str, Scalar], resources: Resources, console: Console
) -> "list[RoundEntry]":
    """Start the simulation, follow it to its end, and return its rounds."""
    from pluralllm_app.engines.simulation import Simulation
    from pluralllm_app.records.writer import close_unfinished

    out = settings.path("out")
    try:
        with Simulation(APP, run_config, resources, out / LOG) as simulation:
            rounds = list(follow(simulation, settings, console, "starting Flower and Ray"))
            outcome = simulation.poll()
    except KeyboardInterrupt:
        info = close_unfinished(out, "stopped", "interrupted")
        said = _stopped(out, info.status if info else "stopped")
        # Standard output may be what is gone.
        Terminal(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
        raise
    error = outcome.error if outcome else None
    info = close_unfinished(out, "failed", error)
    if info is None or info.status != "completed":
        cause = (info and info.error) or error
        raise UserError(f"the run failed: {cause}\nSee {out} and its {LOG}.")
    return rounds


def _advice(settings: Settings) -> str:
    from pluralllm_app.survey.embedders.registry import SENTENCE_EMBEDDER, advice
    from pluralllm_app.survey.info import SurveyInfo

    survey = SurveyInfo.read(settings.path("survey") / "survey.json")
    again = f"repeat `pluralllm prepare`, with --embedder {SENTENCE_EMBEDDER} --overwrite"
    return advice(survey.embedder, survey.synthetic, again)


def _stopped(out: Path, status: str) -> str:
    """What to say of the interrupted run in `out`; one that had not begun is removed."""
    from pluralllm_app.records.writer import STATE

    if status != "completed" and (out / STATE).exists():
        return f"Stopped. To go on: pluralllm run --resume {shlex.quote(str(out))}"
    if status != "stopped":
        return f"Interrupted, but the run had {status} before: see {out}"
    # It was empty before this command; a tracker may have begun there as well.
    shutil.rmtree(out, ignore_errors=True)
    return "Stopped. Nothing was done yet, and nothing is kept."
