"""What a client does with a train message besides the steps themselves.

    python benchmarks/client.py data/globalopinionqa

Deserialising, loading the weights, drawing the tasks and gathering their rows, serialising. One
thread, as in a run; the messages are pickled as Ray does.
"""

import logging
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from flwr.app import Message
from measuring import paper_config, parse, publish

from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning import local_steps as training
from pluralllm_app.learning.node_memory import NodeMemory
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey


class Stopwatch:
    """Adds up the seconds of the calls it wraps."""

    def __init__(self) -> None:
        self.total = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.total += time.perf_counter() - start

        return timed


class TimedGrid(InProcessGrid):
    """Times each train message, from its bytes to the bytes of its reply."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps, self.tasks, self.moments = Stopwatch(), Stopwatch(), Stopwatch()
        self.whole: list[float] = []
        self.beside: list[float] = []  # the steps themselves
        self.kept: list[float] = []

    def ask(self, message: Message) -> Message | None:
        """The reply of a message's node."""
        if message.metadata.message_type != "train":
            return super().ask(message)
        received = pickle.dumps(message)
        self.steps.total = self.tasks.total = self.moments.total = 0.0
        start = time.perf_counter()
        reply = super().ask(pickle.loads(received))
        pickle.dumps(reply)
        whole = time.perf_counter() - start
        self.whole.append(whole)
        self.beside.append(whole - self.steps.total + self.tasks.total)
        self.kept.append(self.moments.total)
        return reply


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("survey", type=Path),
            parser.add_argument("--rounds", type=int, default=5),
        ),
    )
    logging.getLogger("flwr").setLevel(logging.WARNING)
    survey = PreparedSurvey.open(arguments.survey)
    with tempfile.TemporaryDirectory() as directory:
        config = paper_config() | {
            "survey": str(survey.path),
            "out": str(Path(directory, "run")),
            "rounds": arguments.rounds,
            "evaluate-every": arguments.rounds,
        }
        grid = TimedGrid(client_app.app, config, len(survey.groups))
        with (
            patch.object(training, "run_steps", grid.steps.around(training.run_steps)),
            patch.object(training, "draw_task", grid.tasks.around(training.draw_task)),
            patch.object(NodeMemory, "load", grid.moments.around(NodeMemory.load)),
            patch.object(NodeMemory, "keep", grid.moments.around(NodeMemory.keep)),
            patch.object(PreferenceSet, "task", grid.tasks.around(PreferenceSet.task)),
            patch.object(Batch, "gather", grid.tasks.around(Batch.gather)),
        ):
            run_federation(grid, Settings.from_config(config), config)
    per_round = len(grid.whole) // arguments.rounds
    publish(
        "client",
        {
            "survey": survey.name,
            "messages": len(grid.whole) - per_round,
            "ms a message": 1e3 * median(grid.whole[per_round:]),
            "ms of it beside the steps": 1e3 * median(grid.beside[per_round:]),
            "ms of that for moments on disk": 1e3 * median(grid.kept[per_round:]),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
