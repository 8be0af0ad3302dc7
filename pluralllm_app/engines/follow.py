"""Shows a run while another process writes its directory."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from pluralllm_app.engines.base import POLL_SECONDS, Engine
from pluralllm_app.settings import Settings

if TYPE_CHECKING:
    from pluralllm_app.records.schema import RoundEntry


def follow(
    engine: Engine, settings: Settings, console: Console, waiting: str
) -> "Iterator[RoundEntry]":
    """Yield each round as it is recorded, showing it; ends when the run does.

    Until the first one, it shows what is waited for.

    Args:
        engine: what runs it.
        settings: of the run.
        console: where it is shown.
        waiting: what to say until the groups are there.
    """
    from pluralllm_app.records.console import RoundTable
    from pluralllm_app.records.reader import RoundReader, read_run

    out = settings.path("out")
    reader = RoundReader(out)

    def has_groups() -> bool:
        run = read_run(out)
        return run is not None and (bool(run.roster) or run.status != "running")

    console.print(f"{waiting[0].upper()}{waiting[1:]} ...", highlight=False)
    with console.status(waiting):
        while not has_groups() and engine.poll() is None:
            time.sleep(POLL_SECONDS)
    if (run := read_run(out)) and run.roster and not settings.resume:
        console.print(
            f"{len(run.roster)} groups are there. Round 0 scores the predictor before any training;"
            " its row comes with the updates of round 1.",
            highlight=False,
            soft_wrap=True,
        )
    with RoundTable(console, "training", settings.federation.rounds) as table:
        ended = False
        while not ended:
            # The order matters: what was written before the end is still read after it. A run
            # that has recorded its outcome need not wait for Flower to take itself down.
            run = read_run(out)
            ended = (run is not None and run.status != "running") or engine.poll() is not None
            table.wait(run.waiting if run else None)
            for entry in reader.read():
                table.show(entry)
                yield entry
            time.sleep(POLL_SECONDS)
