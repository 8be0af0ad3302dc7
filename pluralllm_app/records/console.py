"""Shows a run in a terminal: a row for each round that was scored, and the results at the end."""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pluralllm_app.core.parts import installation, missing
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.records.groups_table import print_groups
from pluralllm_app.records.observers import Observer
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.schema import RoundEntry, RunInfo, Waiting
from pluralllm_app.scoring.results import Role, RoleSummary

HEADER = (
    "            train      train groups   groups never trained on\n"
    "round        loss     mean    worst      mean    worst      FI   seconds"
)
ROLE_TITLES: dict[Role, str] = {
    "evaluation": "Groups never trained on",
    "train": "Train groups",
}


class RoundTable(Observer):
    """A table that grows with the rounds, above a bar that vanishes with the end of the block."""

    def __init__(self, console: Console, waiting: str, rounds: int) -> None:
        """Show nothing yet.

        Args:
            console: where to print.
            waiting: what the bar says until the first round.
            rounds: how many there will be, at most.
        """
        self._console = console
        self._progress = progress_bars(console)
        self._bar = self._progress.add_task(waiting, total=rounds)
        self._said = waiting
        self._waiting: Waiting | None = None

    def __enter__(self) -> "RoundTable":
        self._progress.start()
        self._console.print(HEADER, highlight=False, soft_wrap=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            # Ctrl-C may come after the console has written a row and before it forgets it: it would
            # write it again at the end.
            with self._console.capture():
                pass
        self._progress.stop()

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """Show a round."""
        self.show(entry)

    def show(self, entry: RoundEntry) -> None:
        """Print a round's failures, and its row if it was scored."""
        for failure in entry.failures:
            self._console.print(
                f"  round {entry.round}: {failure.group} failed to {failure.phase}: "
                f"{failure.reason}",
                markup=False,
                style="yellow",
            )
        if entry.evaluation:
            self._console.print(_row(entry), markup=False, highlight=False, soft_wrap=True)
        loss = entry.train.loss if entry.train else None
        said = "training" if loss is None else f"training, loss {loss:.4f}"
        self._said = said
        self._progress.update(self._bar, completed=entry.round, description=said)

    def wait(self, waiting: Waiting | None) -> None:
        """Show for which nodes the run waits, and how long still; None: for none."""
        if waiting:
            groups = ", ".join(waiting.groups)
            left = (datetime.fromisoformat(waiting.until) - datetime.now(UTC)).total_seconds()
            if waiting != self._waiting:
                self._console.print(
                    f"  round {waiting.round}: the node went away of {groups}: waiting "
                    f"{left:.0f} s at most for it, then the round is repeated",
                    markup=False,
                    highlight=False,
                    style="yellow",
                    soft_wrap=True,
                )
            said = f"waiting for {escape(groups)}, {max(left, 0):.0f} s still"
            self._progress.update(self._bar, description=said)
        elif self._waiting:
            self._progress.update(self._bar, description=self._said)
        self._waiting = waiting


def progress_bars(console: Console) -> Progress:
    """Bars that vanish at the end: what is done, of how much, for how long."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def _row(entry: RoundEntry) -> str:
    """A round with an evaluation as a line under HEADER."""

    def summary(role: Role) -> RoleSummary | None:
        return entry.evaluation.roles[role] if entry.evaluation else None

    train, unseen = summary("train"), summary("evaluation")
    loss = entry.train.loss if entry.train else None
    mean, worst = (train.mean, train.worst) if train else (None, None)
    numbers = (unseen.mean, unseen.worst, unseen.fi) if unseen else (None, None, None)
    unseen_mean, unseen_worst, fairness = map(_number, numbers)
    return (
        f"{entry.round:>5}  {_number(loss):>10}   {_number(mean):>6}   {_number(worst):>6}    "
        f"{unseen_mean:>6}   {unseen_worst:>6}  {fairness:>6}   {entry.seconds:>7.1f}"
    )


def print_results(out: Path, rounds: Sequence[RoundEntry], console: Console, hint: str) -> None:
    """Print the scores of a completed run, where it is, and what to do next.

    Args:
        out: the run directory.
        rounds: all its rounds; the first and the last are scored.
        console: where to print.
        hint: a line to end with.
    """

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    run, first, last = read_run(out), rounds[0].evaluation, rounds[-1].evaluation
    assert run
    assert run.survey
    assert first
    assert last
    say(f"Survey: {run.survey.name}")
    if last.groups:
        print_groups(first.groups, last.groups, console)
    else:
        say("Scores of single groups stayed with them: the server has sums over groups alone.")
    for role, title in ROLE_TITLES.items():
        if summary := last.roles[role]:
            say(
                f"{title}: mean {summary.mean:.4f}, pooled {_number(summary.pooled)}, worst "
                f"{_number(summary.worst)} ({summary.worst_group or 'unknown'}), gap "
                f"{_number(summary.gap)}, FI {summary.fi:.4f} over groups, "
                f"{_number(summary.fi_per_question)} per question" + _by_reservation(summary)
            )
    for line in (
        *tracker_lines(run),
        f"Run directory: {out}",
        f"See it in a browser: {report_command(out)}",
        hint,
    ):
        say(line)


def tracker_lines(run: RunInfo | None) -> list[str]:
    """What to say at the end of a run whose tracker failed; nothing otherwise."""
    if run is None or not run.tracker_error:
        return []
    return [f"The tracker did not get the whole run: {run.tracker_error}"]


def report_command(path: Path) -> str:
    """How to see a run or a comparison in a browser, and first how to install what that lacks."""
    command = f"pluralllm report {shlex.quote(str(path))}"
    return f"{installation('report')}, then {command}" if missing("report") else command


def _by_reservation(summary: RoleSummary) -> str:
    if summary.mean_seen is None and summary.mean_reserved is None:
        return ""
    seen, reserved = _number(summary.mean_seen), _number(summary.mean_reserved)
    return f"; seen questions {seen}, reserved ones {reserved}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
