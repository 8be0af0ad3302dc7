"""What ends a command: SIGTERM, a closed pipe; Ctrl-C and a closed terminal unless ignored."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pluralllm_app.settings import Scalar
from tests.support.signals import with_handler
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
STOPPED = b"Stopped. To go on, repeat the command.\n"
ENDLESS: dict[str, Scalar] = {"rounds": 10**6, "evaluate-every": 10**6, "checkpoint-every": 10**6}


class Comparison:
    """`pluralllm compare` of one method, which goes on until it is stopped."""

    def __init__(
        self, config: dict[str, Scalar], directory: Path, handler: signal.Handlers
    ) -> None:
        settings = {k: v for k, v in (config | ENDLESS).items() if k not in ("survey", "out")}
        file = directory / "settings.toml"
        file.write_text("".join(f'"{k}" = {json.dumps(v)}\n' for k, v in settings.items()))
        self.cell = directory / "out" / "cells" / "federated" / "seed-0"
        command = [Path(sys.executable).with_name("pluralllm"), "compare", "--seeds", "1"]
        command += ["--survey", str(config["survey"]), "--config", file]
        command += ["--method", "federated", "--out", directory / "out"]
        self.process = subprocess.Popen(
            with_handler(handler, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def rounds(self) -> int:
        """How many rounds it has recorded."""
        file = self.cell / "rounds.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def advance(self) -> None:
        """Wait for two more rounds."""
        before = self.rounds()
        wait_until(lambda: self.rounds() > before + 1 or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]

    def workers(self) -> list[psutil.Process]:
        """The processes that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stopped(self, number: signal.Signals) -> bytes:
        """Send a signal that stops it; returns what it printed as errors."""
        self.process.send_signal(number)
        _, errors = self.process.communicate()
        assert self.process.returncode == 130, errors
        assert json.loads((self.cell / "run.json").read_text())["status"] == "stopped"
        return errors


Start = Callable[[signal.Handlers], Comparison]


@pytest.fixture
def start(config: dict[str, Scalar], tmp_path: Path) -> Iterator[Start]:
    """Starts a comparison; none is left after the test."""
    started: list[Comparison] = []

    def start(handler: signal.Handlers) -> Comparison:
        started.append(Comparison(config, tmp_path, handler))
        return started[-1]

    yield start
    for comparison in started:
        comparison.process.kill()
        comparison.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_command_and_its_processes(start: Start, number: signal.Signals) -> None:
    comparison = start(signal.SIG_DFL)
    comparison.advance()
    workers = comparison.workers()
    assert workers
    assert comparison.stopped(number) == STOPPED
    wait_until(lambda: not any(worker.is_running() for worker in workers))


def test_what_is_ignored_stays_ignored_but_sigterm_stops(start: Start) -> None:
    comparison = start(signal.SIG_IGN)
    comparison.advance()
    for number in (signal.SIGINT, signal.SIGHUP):
        comparison.process.send_signal(number)
        comparison.advance()
    assert comparison.stopped(signal.SIGTERM) == STOPPED


def test_a_killed_command_leaves_no_process(start: Start) -> None:
    comparison = start(signal.SIG_DFL)
    comparison.advance()
    workers = comparison.workers()
    assert workers
    comparison.process.kill()
    wait_until(lambda: not any(worker.is_running() for worker in workers))
