"""`pluralllm run`: check everything that can be checked, run the simulation, show what happens."""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pluralllm_app.core.atomic import beside
from pluralllm_app.core.locks import held
from pluralllm_app.engines.follow import follow
from pluralllm_app.engines.simulation import Resources, Simulation, share_out, usable_cpus
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.settings import (
    Scalar,
    Settings,
    check_names,
    flatten,
    parse_overrides,
    read_defaults,
    read_toml,
)

if TYPE_CHECKING:
    from pluralllm_app.records.schema import RoundEntry

APP = Path(__file__).resolve().parents[2]
DEMO = APP / "data" / "demo"
LOG = "flower.log"


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
        resume: run directory to go on with; survey, config, overrides and out are then as they
            were.

    Raises:
        UserError: anything the user can mend; the run directory, if it was begun, says so too.
    """
    if resume:
        if survey or config or overrides or out:
            raise UserError("--resume takes the run's own survey and settings: give it alone")
        run_config = read_resumed_config(resume)
        settings = Settings.from_config(run_config)
    else:
        run_config = read_run_config(survey, config, overrides, out)
        settings = settings_with_survey(run_config, console)
    with console.status("checking settings and survey"):
        resources = check_run(settings, actors)
    run_config["expected-nodes"] = resources.supernodes  # they join one after another
    if not resume:
        make_out(run_config)
        settings = Settings.from_config(run_config)
    with claimed(settings.path("out")):
        if resume:
            reopen(settings.path("out"), run_config)
        console.print(
            f"Flower simulation: {resources.supernodes} groups on {resources.actors} "
            f"process{'es' if resources.actors > 1 else ''} of {resources.threads} "
            f"thread{'s' if resources.threads > 1 else ''}"
            + (f", {resources.gpu_share:g} GPU each" if resources.gpus else "")
        )
        rounds = _run_simulation(settings, run_config, resources, console)
    from pluralllm_app.records.console import print_results

    print_results(settings.path("out"), rounds, console, _hint(settings))


def read_resumed_config(path: Path) -> dict[str, Scalar]:
    """The run config of the run in `path`, to go on with it.

    Raises:
        UserError: it holds no run, or a damaged one.
    """
    from pluralllm_app.records.reader import read_run

    path = path.expanduser().resolve()
    run = read_run(path)
    if run is None:
        raise UserError(f"{path} holds no run to resume: it has no run.json")
    return {**run.settings, "resume-from": str(path), "out": "", "expected-nodes": 0}


def reopen(out: Path, run_config: Mapping[str, Scalar]) -> None:
    """Check that the run in `out` can go on, and cut its record to what it goes on from.

    Raises:
        UserError: see `record.recorded_run`.
    """
    from pluralllm_app.federation.state import rewind
    from pluralllm_app.records.lock import locked_run
    from pluralllm_app.records.resume import check_resumable, reopen_record

    with locked_run(out):
        check_resumable(out, run_config)
        rewind(out)
        reopen_record(out)


def read_run_config(
    survey: Path | None, config: Path | None, overrides: list[str], out: Path | None
) -> dict[str, Scalar]:
    """Merge defaults, a file of settings, single settings and the paths given as options.

    Raises:
        SettingsError: an unknown name (with the nearest known ones), an unreadable file, or a
            single setting of a strategy that is not chosen.
    """
    pyproject = APP / "pyproject.toml"
    if not pyproject.exists():
        raise UserError(
            f"{pyproject} is missing: Flower needs the app's source tree, so install it from a "
            "checkout with `pip install -e .`"
        )
    defaults = read_defaults(pyproject)
    single = parse_overrides(overrides)
    merged = defaults | (flatten(read_toml(config)) if config else {}) | single
    check_names(merged, defaults)
    for key in single:
        # A file may hold options of several strategies; a single one is meant for this run.
        if "." in key and not key.startswith(f"{merged['strategy']}."):
            own = key.split(".")[0]
            raise SettingsError(
                f"{key} is for strategy = {own!r}, not {merged['strategy']!r}: add strategy={own}"
            )
    for key, path in (("survey", survey), ("out", out)):
        if path is not None:
            merged[key] = str(path)
    merged["out"] = str(merged["out"] or os.environ.get("PLURALLLM_OUT", ""))
    merged["survey"] = str(merged["survey"] or os.environ.get("PLURALLLM_SURVEY", ""))
    for key in ("survey", "out"):
        if merged[key]:
            merged[key] = str(Path(str(merged[key])).expanduser().resolve())
    return merged


def settings_with_survey(run_config: dict[str, Scalar], console: Console) -> Settings:
    """The settings of a new run, checked; without a survey, of the demo, set in the run config."""
    settings = Settings.from_config(run_config)
    with console.status("checking settings"):
        from pluralllm_app.federation.strategies import make_strategy

        make_strategy(settings)
    if run_config["survey"]:
        return settings
    run_config["survey"] = str(demo_survey(console))
    return Settings.from_config(run_config)


def check_run(settings: Settings, actors: int | None) -> Resources:
    """Check survey, groups, tracker and machine before anything is started."""
    # Here and not above, so that `--help` and a mistyped setting answer at once.
    import torch

    from pluralllm_app.federation.roster import check_groups
    from pluralllm_app.preferences import split_questions
    from pluralllm_app.records.trackers import check_tracker
    from pluralllm_app.survey.prepared import PreparedSurvey

    survey = PreparedSurvey.open(settings.path("survey"))
    survey.verify()
    groups = []
    for group in survey.groups:
        split = split_questions(survey.preferences(group.name), group.role, settings.split)
        groups.append((group.name, group.role, group.questions, len(split.train)))
    check_tracker(settings.federation.tracker)
    check_groups(groups, settings)
    device = settings.training.device
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if device == "cuda" and not gpus:
        raise SettingsError("device = 'cuda', but torch sees no GPU here: set device = 'auto'")
    expected, threads = settings.federation.expected_nodes, settings.training.client_threads
    if expected not in (0, len(groups)):
        raise SettingsError(
            f"expected-nodes = {expected}, but a simulation of this survey has {len(groups)} "
            "nodes: leave it 0"
        )
    return share_out(len(groups), threads, actors, usable_cpus(), gpus)


def make_out(run_config: dict[str, Scalar], label: str = "", runs: Path = Path("runs")) -> None:
    """Make the run directory; where the run config gives none, a new one in `runs`, set there.

    Raises:
        UserError: it holds something, or cannot be made.
    """
    given = str(run_config["out"])
    name = f"{datetime.now():%Y%m%d-%H%M%S}{label}-seed{run_config['seed']}"
    out = Path(given) if given else (runs / name).resolve()
    try:
        if given:
            if out.is_file():
                raise UserError(f"{out} is a file: give another --out")
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise UserError(f"{out} is not empty: give another --out")
        else:
            out = _new_directory(out)
    except OSError as error:
        raise UserError(f"cannot write the run directory {out}: {error.strerror}") from error
    run_config["out"] = str(out)


def _new_directory(path: Path) -> Path:
    """Make a directory at `path`, or at path-2, path-3, ..., where there is none yet."""
    for number in count(1):
        own = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            own.mkdir(parents=True)
            break
    return own


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other commands from running in the directory `out` for the block.

    The app's own process locks the record, but only starts seconds later; this locks the log.

    Raises:
        UserError: another one runs there, or it cannot be written.
    """
    try:
        lock = held(out / LOG, f"another command runs in {out}: wait for it, or end it")
    except OSError as error:
        raise UserError(f"cannot write the run directory {out}: {error.strerror}") from error
    with lock:
        yield


def demo_survey(console: Console) -> Path:
    """The demo survey in DEMO, made there if nothing is.

    Raises:
        UserError: something else is there, for instance the demo of another seed.
    """
    console.print("No --survey given: taking the demo survey, which is synthetic.")
    with console.status("preparing it"):
        from pluralllm_app.survey.prepare import prepare
        from pluralllm_app.survey.prepared import PreparedSurvey

        fresh = beside(DEMO, "demo")
        try:
            demo = prepare("demo", fresh, console=Console(quiet=True))  # takes a moment only
            try:
                fresh.rename(DEMO)
            except OSError:  # something is there, perhaps from a command that starts just now
                if not PreparedSurvey.open(DEMO).equals(demo):
                    raise UserError(
                        f"{DEMO} is not the demo survey as it is built in: give it as --survey "
                        f"{DEMO}, or move it away"
                    ) from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return DEMO


def _run_simulation(
    settings: Settings,
    run_config: Mapping[str, Scalar],
    resources: Resources,
    console: Console,
) -> "list[RoundEntry]":
    """Start the simulation, follow it to its end, and return the rounds."""
    from pluralllm_app.records.writer import close_unfinished

    out = settings.path("out")
    log = out / LOG
    rounds = []
    try:
        with Simulation(APP, run_config, resources, log) as simulation:
            for entry in follow(simulation, settings, console, "starting Flower and Ray"):
                rounds.append(entry)
    except KeyboardInterrupt:
        run = close_unfinished(out, "stopped", "interrupted")
        said = _stopped(out, run.status if run else "stopped")
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        raise
    run = close_unfinished(out, "failed", simulation.error)
    if run is None or run.status != "completed":
        cause = (run and run.error) or simulation.error
        raise UserError(f"the run failed: {cause}\nSee {out} and its flower.log.")
    return rounds


def _hint(settings: Settings) -> str:
    survey = shlex.quote(str(settings.path("survey")))
    other = "fedprox" if settings.federation.strategy == "fedavg" else "fedavg"
    return (
        f"Next, try a strategy: pluralllm run --survey {survey} -c 'strategy={other}', or see what "
        f"simpler ways give: pluralllm compare --survey {survey}"
    )


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
