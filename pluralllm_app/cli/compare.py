"""`pluralllm compare` and `pluralllm centralized`: run them with progress, print their tables."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pluralllm_app.cli.comparison_tables import print_comparison
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.core.wording import many
from pluralllm_app.engines.preflight import preflight
from pluralllm_app.engines.run_config import read_run_config, settings_with_survey
from pluralllm_app.engines.run_directory import make_run_directory
from pluralllm_app.errors import PredictorError, UserError
from pluralllm_app.experiments.comparison import Cell, locked, open_comparison
from pluralllm_app.experiments.few_shot import score_few_shot, unscored
from pluralllm_app.experiments.methods import available_methods, check_methods
from pluralllm_app.experiments.results import ROLES, SCORES, Comparison, Run
from pluralllm_app.experiments.runs import run_centralized
from pluralllm_app.experiments.workers import default_jobs, run_cells
from pluralllm_app.learning.budgets import budget_steps
from pluralllm_app.learning.device import prepare_processor
from pluralllm_app.learning.registry import check_plain
from pluralllm_app.records.console import RoundTable, progress_bars, report_command, tracker_lines
from pluralllm_app.records.reader import read_run
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey


def compare(
    survey: Path | None,
    config: Path | None,
    overrides: list[str],
    out: Path | None,
    seeds: int,
    methods: Sequence[str],
    jobs: int | None,
    console: Console,
) -> None:
    """Run what a comparison lacks and print its tables.

    Raises:
        UserError: anything the user can mend; what is finished stays and is not run again. After
            the tables: some runs failed, or models that they saved cannot be scored.
    """
    check_methods(methods)
    run_config, settings, prepared = _prepared(survey, config, overrides, out, console)
    methods = available_methods(methods, prepared)
    default = Path("runs", f"compare-{prepared.path.name}").resolve()
    out = Path(str(run_config["out"] or default))
    preflight(settings)
    with locked(out):
        cells = open_comparison(out, run_config, prepared, seeds, methods)
        left = [cell for cell in cells if not cell.finished]
        jobs = min(jobs or default_jobs(settings), len(left) or 1)
        if done := len(cells) - len(left):
            console.print(f"{done} of {many(len(cells), 'run')} finished already.")
        try:
            errors = _run(left, jobs, console) if left else {}
            damaged = _score_few_shot(Comparison.read(out), prepared, settings, console)
        except KeyboardInterrupt:
            Terminal(stderr=True).print("Stopped. To go on, repeat the command.")
            raise
        comparison = Comparison.read(out)
        _write_scores(comparison, out / "scores.csv")
    print_comparison(comparison, console)
    if faults := [*_failed(errors, len(cells)), *_unscored(damaged)]:
        raise UserError("\n".join(faults))
    for line in (
        f"Comparison: {out}, every score in its scores.csv",
        f"Next, see it in a browser: {report_command(out)}",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def centralized(
    survey: Path | None,
    config: Path | None,
    overrides: list[str],
    out: Path | None,
    budget: str,
    console: Console,
) -> None:
    """Train on all groups in one place, show each evaluation, and name the run directory."""
    run_config, settings, prepared = _prepared(survey, config, overrides, out, console)
    train_groups = sum(group.role == "train" for group in prepared.groups)
    steps = budget_steps(budget, settings, train_groups)
    preflight(settings)
    run_config["out"] = str(make_run_directory(run_config, f"-centralized-{budget}"))
    settings = Settings.from_config(run_config)
    rounds = -(-steps // settings.training.local_steps)
    console.print(
        f"Centralized training on {many(train_groups, 'group')} of {prepared.name}: "
        f"{'at most ' * (budget == 'converged')}{steps} steps of "
        f"{train_groups * settings.training.tasks_per_step} tasks",
        soft_wrap=True,
        markup=False,
    )
    with RoundTable(console, "training", rounds) as table:
        run_centralized(prepared, settings, run_config, budget, [table])
    for line in (
        *tracker_lines(read_run(settings.path("out"))),
        f"Run directory: {settings.path('out')}",
        "Next, compare with the federated run: pluralllm compare --survey "
        + shlex.quote(str(prepared.path)),
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _prepared(
    survey: Path | None,
    config: Path | None,
    overrides: list[str],
    out: Path | None,
    console: Console,
) -> tuple[dict[str, Scalar], Settings, PreparedSurvey]:
    run_config = read_run_config(survey, config, overrides, out)
    settings = settings_with_survey(run_config, console)
    check_plain(settings)
    return run_config, settings, PreparedSurvey.open(settings.path("survey"))


def _run(cells: Sequence[Cell], jobs: int, console: Console) -> dict[Cell, str]:
    console.print(f"Runs to do: {len(cells)}, {jobs} at a time.")
    with progress_bars(console) as progress:
        whole = progress.add_task("runs", total=len(cells))
        bars: dict[Cell, Any] = {}

        def watch(running: list[Cell], done: int) -> None:
            progress.update(whole, completed=done)
            for cell in [cell for cell in bars if cell not in running]:
                progress.remove_task(bars.pop(cell))
                if not console.is_terminal:  # where no bar is to be seen
                    console.print(f"{cell.method}, seed {cell.seed}: {_outcome(cell)}")
            for cell in running:
                if cell not in bars:
                    bars[cell] = progress.add_task(f"{cell.method}, seed {cell.seed}", total=None)
                progress.update(bars[cell], completed=_rounds_done(cell))

        return run_cells(cells, jobs, watch)


def _score_few_shot(
    comparison: Comparison, prepared: PreparedSurvey, settings: Settings, console: Console
) -> list[tuple[Run, PredictorError]]:
    """Score what is not scored yet at different numbers of context questions.

    Returns the runs whose saved model cannot be scored.
    """
    runs = unscored(comparison)
    if not runs or not any(group.role == "evaluation" for group in prepared.groups):
        return []
    prepare_processor(settings.training.client_threads)
    pool = PooledSurvey.read(prepared)
    damaged = []
    with progress_bars(console) as progress:
        bar = progress.add_task("scoring from few answers and many", total=len(runs))
        if not console.is_terminal:  # where no bar is to be seen
            console.print("Scoring from few answers and many ...")
        for run in runs:
            try:
                score_few_shot(run, pool)
            except PredictorError as error:
                damaged.append((run, error))
            progress.advance(bar)
    return damaged


def _failed(errors: Mapping[Cell, str], runs: int) -> list[str]:
    """What to say of runs that failed."""
    lines = [f"{cell.method}, seed {cell.seed}: {text}" for cell, text in errors.items()]
    return [f"{len(errors)} of {many(runs, 'run')} failed:", *lines] if lines else []


def _unscored(damaged: Sequence[tuple[Run, PredictorError]]) -> list[str]:
    """What to say of runs whose saved models cannot be scored."""
    if not damaged:
        return []
    lines = [f"{run.method}, seed {run.seed}: {error}" for run, error in damaged]
    remove = shlex.join(["rm", "-r", *(str(run.path) for run, _ in damaged)])
    return [
        f"{many(len(damaged), 'saved model')} cannot be scored by number of questions, and "
        "that table is without them:",
        *lines,
        f"To train them again: {remove}, then repeat the command.",
    ]


def _outcome(cell: Cell) -> str:
    return "done" if cell.finished else "failed"


def _rounds_done(cell: Cell) -> int:
    rounds = cell.path / "rounds.jsonl"
    return max(0, rounds.read_bytes().count(b"\n") - 1) if rounds.exists() else 0


def _write_scores(comparison: Comparison, file: Path) -> None:
    """Write one row per method, seed and role, for tools of the user's own."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["method", "pools_answers", "seed", "role", *SCORES])
        for method in comparison.methods:
            for run in method.runs:
                for role in ROLES:
                    scores = [run.score(role, key) for key in SCORES]
                    writer.writerow([method.name, method.pools_answers, run.seed, role, *scores])
