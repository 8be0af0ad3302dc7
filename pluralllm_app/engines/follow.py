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

    Args:
        engine: what runs it.
        settings: of the run.
        console: where it is shown.
        waiting: what to say until the first round.
    """
    from pluralllm_app.records.console import RoundTable
    from pluralllm_app.records.reader import RoundReader, read_run

    out = settings.path("out")
    reader = RoundReader(out)
    with RoundTable(console, waiting, settings.federation.rounds) as table:
        ended = False
        while not ended:
            # The order matters: what was written before the end is still read after it. A run
            # that has recorded its outcome need not wait for Flower to take itself down.
            run = read_run(out)
            ended = (run is not None and run.status != "running") or engine.poll() is not None
            for entry in reader.read():
                table.show(entry)
                yield entry
            time.sleep(POLL_SECONDS)
