"""Shows a run while another process writes its directory, and its results at the end."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

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
from rich.table import Table

from pluralllm_app.settings import Settings

POLL_SECONDS = 0.1


class Engine(Protocol):
    """What runs the app in another process."""

    def poll(self) -> object | None:
        """How the run ended; None while it goes on."""


def follow(
    engine: Engine, settings: Settings, console: Console, waiting: str
) -> Iterator[dict[str, Any]]:
    """Yield each round as it is recorded, showing it; ends when the run does.

    Args:
        engine: what runs it.
        settings: of the run.
        console: where it is shown.
        waiting: what to say until the first round.
    """
    # Here, so that `--help` and a mistyped setting answer at once.
    from pluralllm_app.records.writer import read_run

    out = settings.path("out")
    tail = _Tail(out / "rounds.jsonl")
    with progress_bars(console) as progress:
        rounds = settings.federation.rounds
        bar = progress.add_task(waiting, total=rounds)
        console.print(HEADER, highlight=False, soft_wrap=True)
        ended = False
        while not ended:
            # The order matters: what was written before the end is still read after it. A run
            # that has recorded its outcome need not wait for Flower to take itself down.
            status = read_run(out).get("status", "running")
            ended = status != "running" or engine.poll() is not None
            for entry in tail.read():
                for failure in entry["failures"]:
                    console.print(
                        f"  round {entry['round']}: {failure['group']} failed to "
                        f"{failure['phase']}: {failure['reason']}",
                        markup=False,
                        style="yellow",
                    )
                if entry.get("evaluation"):
                    console.print(round_row(entry), markup=False, highlight=False, soft_wrap=True)
                progress.update(bar, completed=entry["round"], description=_describe(entry))
                yield entry
            time.sleep(POLL_SECONDS)


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


class _Tail:
    """Reads the new whole lines of a JSON-lines file that another process writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


HEADER = (
    "            train      train groups   groups never trained on\n"
    "round        loss     mean    worst      mean    worst      FI   seconds"
)


def round_row(entry: Mapping[str, Any]) -> str:
    """A round with an evaluation as a line under HEADER."""

    def scores(role: str, *keys: str) -> list[str]:
        summary = entry["evaluation"]["roles"][role]
        return [f"{summary[key]:.4f}" if summary else "-" for key in keys]

    loss = f"{entry['train']['loss']:.4f}" if entry["train"] else "-"
    mean, worst = scores("train", "mean", "worst")
    unseen_mean, unseen_worst, fairness = scores("evaluation", "mean", "worst", "fi")
    return (
        f"{entry['round']:>5}  {loss:>10}   {mean:>6}   {worst:>6}    {unseen_mean:>6}   "
        f"{unseen_worst:>6}  {fairness:>6}   {entry['seconds']:>7.1f}"
    )


def _describe(entry: Mapping[str, Any]) -> str:
    return f"training, loss {entry['train']['loss']:.4f}" if entry.get("train") else "training"


def print_results(
    settings: Settings, rounds: list[dict[str, Any]], console: Console, hint: str
) -> None:
    """Print the scores of a completed run, where it is, and what to do next.

    Args:
        settings: of the run.
        rounds: lines of its rounds.jsonl.
        console: where to print.
        hint: a line to end with.
    """
    from pluralllm_app.records.writer import read_run

    last = rounds[-1]["evaluation"]
    name = read_run(settings.path("out"))["survey"]["name"]
    console.print(f"Survey: {name}", soft_wrap=True, highlight=False, markup=False)
    table = Table(title="Alignment by group (1 is perfect)", title_justify="left")
    table.add_column("group")
    table.add_column("role")
    table.add_column("questions", justify="right")
    table.add_column("untrained", justify="right")
    table.add_column("trained", justify="right", style="bold")
    for name, group in sorted(last["groups"].items(), key=lambda item: (item[1]["role"], item[0])):
        before = rounds[0]["evaluation"]["groups"].get(name)
        table.add_row(
            escape(name),
            group["role"],
            str(group["questions"]),
            f"{before['alignment']:.4f}" if before else "-",
            f"{group['alignment']:.4f}",
        )
    console.print(table)
    for role, title in (("evaluation", "Groups never trained on"), ("train", "Train groups")):
        if summary := last["roles"][role]:
            console.print(
                f"{title}: mean {summary['mean']:.4f}, pooled {summary['pooled']:.4f}, worst "
                f"{summary['worst']:.4f} ({summary['worst_group']}), gap {summary['gap']:.4f}, "
                f"FI {summary['fi']:.4f} over groups, {_number(summary['fi_per_question'])} per "
                "question" + _by_reservation(summary),
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    for line in (
        f"Run directory: {settings.path('out')}",
        f"See it in a browser: {report_command(settings.path('out'))}",
        hint,
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def report_command(path: Path) -> str:
    """How to see a run or a comparison in a browser, and before that how to install what lacks."""
    command = f"pluralllm report {shlex.quote(str(path))}"
    if all(map(find_spec, ("altair", "vl_convert", "jinja2"))):
        return command
    return f"pip install -e '.[report]', then {command}"


def _by_reservation(summary: Mapping[str, Any]) -> str:
    if "mean_reserved" not in summary:
        return ""
    seen, reserved = (_number(summary[key]) for key in ("mean_seen", "mean_reserved"))
    return f"; seen questions {seen}, reserved ones {reserved}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
