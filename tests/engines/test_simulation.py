"""Tests of the simulation's processes, with an app that needs neither torch nor data."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pluralllm_app.core.locks import held
from pluralllm_app.engines.base import Outcome
from pluralllm_app.engines.processes import end_processes
from pluralllm_app.engines.resources import Resources, share_out, usable_cpus
from pluralllm_app.engines.simulation import Simulation
from pluralllm_app.errors import UserError
from tests.support.waiting import wait_until

TINY_APP = Path(__file__).parents[1] / "support" / "tiny_app"
REPOSITORY = Path(__file__).parents[2]
ONE_ACTOR = Resources(supernodes=2, actors=1, threads=1)
STRINGS = {
    "quotes": """it's "quoted" 'twice' = #no comment""",
    "lines": "first\n\tsecond\r\n",
    "unicode": "Türkiye 日本 🌻",
    "backslashes": r"C:\new\table\\",
}


def processes_of(simulations: Path) -> list[psutil.Process]:
    """Find the processes of all simulations whose temporary directories are below a path."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marker = process.environ().get("PLURALLLM_SIMULATION", "")
            if f"{marker} {process.cwd()}".count(f"{simulations}/"):
                found.append(process)
    return found


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory below which the simulations of a test have theirs: short, for the sockets."""
    directory = Path(f"/tmp/t{os.getpid()}-{time.monotonic_ns() % 10**6}")
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    directory.rmdir()  # fails where a simulation left something


@pytest.mark.parametrize(
    ("groups", "threads", "actors", "cpus", "gpus", "expected"),
    [
        (14, 1, None, 2, 0, Resources(14, 2, 1)),
        (14, 4, None, 16, 0, Resources(14, 4, 4)),
        (3, 1, None, 16, 0, Resources(3, 3, 1)),
        (14, 4, None, 2, 0, Resources(14, 1, 4)),
        (14, 1, 8, 2, 0, Resources(14, 8, 1)),
        (14, 2, 3, 16, 1, Resources(14, 3, 2, 1, 0.3333)),
        (14, 2, 3, 16, 2, Resources(14, 3, 2, 2, 0.5)),
        (14, 1, 2, 16, 2, Resources(14, 2, 1, 2, 1.0)),
        (14, 1, 2, 16, 5, Resources(14, 2, 1, 5, 1.0)),
    ],
)
def test_resources_are_shared_out(
    groups: int, threads: int, actors: int | None, cpus: int, gpus: int, expected: Resources
) -> None:
    assert share_out(groups, threads, actors, cpus, gpus) == expected


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no affinity")
def test_cpus_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6})
    assert usable_cpus() == 3


@pytest.mark.parametrize(
    ("groups", "threads", "actors", "message"),
    [
        (0, 1, None, "no groups"),
        (14, 0, None, "0 threads"),
        (14, 1, 0, "0 actors cannot serve 14 groups"),
        (3, 1, 4, "4 actors cannot serve 3 groups"),
    ],
)
def test_impossible_resources_are_refused(
    groups: int, threads: int, actors: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        share_out(groups, threads, actors, 2, 0)


def test_ended_processes_hold_no_locks(tmp_path: Path) -> None:
    # Many threads and much memory make its end slow; the lock goes after its environment.
    slow = (
        "import fcntl, sys, threading, time\n"
        f"lock = open({str(tmp_path / 'lock')!r}, 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "memory = bytearray(b'1' * (500 << 20))\n"
        "for _ in range(100):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)"
    )
    root = tmp_path / "root"
    root.mkdir()
    parent = subprocess.Popen(  # so that the process is no child of this one
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {slow!r}])",
        ],
        env=os.environ | {"PLURALLLM_SIMULATION": str(root)},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"locked\n"
        end_processes(root)
        with held(tmp_path / "lock", "still locked"):
            pass


@pytest.mark.engine
def test_two_runs_at_once_one_completes_and_one_is_left_in_the_middle(
    tmp_path: Path, simulations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    complete: dict[str, bool | int | float | str] = {**STRINGS, "number": -3, "share": 0.5}
    complete |= {
        "nodes": 3,
        "flag": True,
        "table.key": "nested",
        "seen": str(tmp_path / "complete.json"),
    }
    wait = {"mode": "wait", "seen": str(tmp_path / "wait.json")}
    log = tmp_path / "log"
    log.write_text("An earlier line.\n")

    with (
        Simulation(TINY_APP, complete, Resources(3, 2, 1), log) as first,
        Simulation(TINY_APP, wait, ONE_ACTOR, tmp_path / "log2") as second,
    ):
        wait_until(lambda: first.poll() and (tmp_path / "wait.json").exists())
        assert first.poll() == Outcome("completed")
        assert second.poll() is None
        assert processes_of(simulations) != []
    assert processes_of(simulations) == []

    seen, other = (
        json.loads((tmp_path / name).read_text()) for name in ("complete.json", "wait.json")
    )
    assert seen["config"] == {**complete, "mode": "complete"}
    assert sorted(client["partition"] for client in seen["clients"]) == [0, 1, 2]
    assert {client["threads"] for client in seen["clients"]} == {"1"}
    pids, other_pids = ({client["pid"] for client in run["clients"]} for run in (seen, other))
    assert len(pids) <= 2
    assert not pids & other_pids
    assert log.read_text().startswith("An earlier line.\n")
    assert "a line of the ServerApp" in log.read_text()


@pytest.mark.engine
def test_an_app_that_raises_fails_the_run_with_its_message(
    tmp_path: Path, simulations: Path
) -> None:
    with Simulation(TINY_APP, {"mode": "raise"}, ONE_ACTOR, tmp_path / "log") as simulation:
        assert simulation.wait() == Outcome("failed", "the tiny app was told to raise")
    assert processes_of(simulations) == []


@pytest.mark.engine
def test_a_killed_process_fails_the_run(tmp_path: Path, simulations: Path) -> None:
    log, seen = tmp_path / "log", tmp_path / "seen.json"
    config = {"mode": "wait", "seen": str(seen)}
    with Simulation(TINY_APP, config, ONE_ACTOR, log) as simulation:
        wait_until(seen.exists)
        found = processes_of(simulations)
        next(each for each in found if "pluralllm_app.engines.simulated" in each.cmdline()).kill()
        outcome = simulation.wait()
    assert outcome.status == "failed"
    assert "the run's process was killed, perhaps out of memory" in outcome.error
    assert processes_of(simulations) == []


@pytest.mark.engine
@pytest.mark.parametrize(
    ("app", "config", "cause"),
    [
        ("missing", {}, "Cannot find pyproject.toml"),
        (TINY_APP, {"unknown": 1}, "Key 'unknown' is not present"),
    ],
)
def test_a_run_that_cannot_start_says_why(
    tmp_path: Path, simulations: Path, app: str | Path, config: dict[str, int], cause: str
) -> None:
    with Simulation(tmp_path / app, config, ONE_ACTOR, tmp_path / "log") as simulation:
        outcome = simulation.wait()
    assert outcome.status == "failed"
    assert cause in outcome.error
    assert processes_of(simulations) == []


@pytest.mark.engine
def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, simulations: Path) -> None:
    log, seen = tmp_path / "log", tmp_path / "seen.json"
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from pathlib import Path\n"
            "from pluralllm_app.engines.resources import Resources\n"
            "from pluralllm_app.engines.simulation import Simulation\n"
            f"config = {{'mode': 'wait', 'seen': {str(seen)!r}}}\n"
            f"with Simulation(Path({str(TINY_APP)!r}), config, Resources(2, 1, 1),"
            f" Path({str(log)!r})):\n    time.sleep(600)",
        ],
        cwd=REPOSITORY,
    )
    wait_until(seen.exists)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not processes_of(simulations) and not list(simulations.iterdir()))
