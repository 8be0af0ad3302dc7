"""Whole runs behind proxies and under odd variables, and runs whose terminal goes away."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app import client_app
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.command import BIN, TINY_RUN, overrides, pluralllm
from tests.support.local_grid import LocalGrid
from tests.support.signals import with_handler
from tests.support.simulations import left_behind, weights
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.story
DEAD = "127.0.0.1:9"  # nothing listens there
ODD = {
    **{"HTTP_PROXY": f"http://{DEAD}", "https_proxy": DEAD, "all_proxy": f"socks://{DEAD}"},
    **{"ALL_PROXY": f"socks5://{DEAD}", "NO_PROXY": "example.org"},
    **{"PYTHONOPTIMIZE": "2", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    **{"XDG_CACHE_HOME": "/proc/none", "HOME": "/proc/none"},
}
LONG = TINY_RUN | {"rounds": 10**5, "evaluate-every": 1}
Popen = subprocess.Popen[Any]


def test_the_environment_changes_no_bit(
    tiny_survey: PreparedSurvey, config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    local = config | {"out": str(tmp_path / "local")}
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    out = tmp_path / "run"
    done = pluralllm(
        *("run", "--survey", tiny_survey.path, "-c", overrides(TINY_RUN), "--out", out),
        *("--actors", 1),
        env=os.environ | ODD,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dogwood" in done.stdout
    assert weights(out) == weights(tmp_path / "local")
    assert left_behind(simulations) == []


@pytest.fixture
def start(tiny_survey: PreparedSurvey, tmp_path: Path) -> Iterator[Callable[[int], Popen]]:
    """Starts a run that takes for ever, and waits for its first round."""
    out, started = tmp_path / "run", []

    def start(stdout: int) -> Popen:
        command = [BIN / "pluralllm", "run", "--survey", tiny_survey.path, "--out", out]
        command += ["--actors", "1"]
        started.append(
            subprocess.Popen(
                with_handler(signal.SIG_DFL, [*command, "-c", overrides(LONG)]),
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        wait_until(lambda: (out / "rounds.jsonl").exists() or started[-1].poll() is not None)
        assert started[-1].poll() is None, started[-1].communicate()[1]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def status(out: Path) -> tuple[str, str | None]:
    record = json.loads((out / "run.json").read_text("utf-8"))
    return record["status"], record["error"]


def read_all(terminal: int) -> None:
    """Read what a terminal shows, as long as there is one: its buffer is small."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass
    os.close(terminal)


def test_a_closed_terminal_stops_a_run(
    start: Callable[[int], Popen], tmp_path: Path, simulations: Path
) -> None:
    keyboard, terminal = os.openpty()
    reader = threading.Thread(target=read_all, args=[os.dup(keyboard)], daemon=True)
    reader.start()
    process = start(terminal)
    os.close(terminal)
    os.close(keyboard)  # what it prints cannot be written from now on
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert status(tmp_path / "run") == ("stopped", "interrupted")
    assert f"Stopped. To go on: pluralllm run --resume {tmp_path / 'run'}\n" in errors
    assert "Traceback" not in errors
    assert left_behind(simulations) == []


def test_a_pipe_closed_at_its_other_end_stops_a_run(
    start: Callable[[int], Popen], tmp_path: Path, simulations: Path
) -> None:
    process = start(subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # as `head -1`
    process.stdout.close()
    assert process.stderr
    errors = process.stderr.read()
    assert process.wait(PATIENCE) == 130, errors
    assert status(tmp_path / "run") == ("stopped", "interrupted")
    assert errors == f"Stopped. To go on: pluralllm run --resume {tmp_path / 'run'}\n"
    assert left_behind(simulations) == []


def test_a_run_whose_command_is_killed_says_so(
    start: Callable[[int], Popen], tmp_path: Path, simulations: Path
) -> None:
    process = start(subprocess.DEVNULL)
    process.kill()
    process.wait()
    wait_until(lambda: not left_behind(simulations) and not list(simulations.iterdir()))
    wait_until(lambda: status(tmp_path / "run") == ("stopped", "the command was killed"))
