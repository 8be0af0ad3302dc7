"""Run a Flower app in Flower's simulation, in processes of our own, and leave none of them behind.

A simulation is a SuperLink on a free port of this machine, one submitted run, and the Ray cluster
that Flower starts for it. `Simulation` owns all of them from entering to leaving its `with` block:

    with Simulation(app, {"seed": 3}, share_out(14, 1, None, 8, 0), log) as simulation:
        while (outcome := simulation.poll()) is None:
            time.sleep(0.1)
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import tomli_w

from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_compat import (
    ENVIRONMENT,
    HOME,
    POLL_INTERVAL,
    RUN_STARTED,
    cause_in,
    listed_outcome,
)
from pluralllm_app.settings import read_toml

_MARKER = "PLURALLLM_SIMULATION"
_GRACE_SECONDS = 10.0

# One interpreter submits the run, follows it to its end and asks for the outcome: a second `flwr`
# command would import Flower once more. It ends all the rest should this
# process be killed: its standard input is then closed.
_SUBMITTER = """
import os, socket, subprocess, sys, threading, time
root, port, outcome, *run = sys.argv[1:]

def follow_parent():
    sys.stdin.read()
    # In a process of its own: this one ends with the SuperLink.
    end = "import sys, pathlib, pluralllm_app.engines.simulation as simulation\\n"
    end += "simulation.end_processes(pathlib.Path(sys.argv[1]))"
    subprocess.Popen([sys.executable, "-c", end, root], cwd="/")

threading.Thread(target=follow_parent, daemon=True).start()
from pluralllm_app.federation.flower_compat import flwr
while True:
    try:
        socket.create_connection(("127.0.0.1", int(port))).close()
        break
    except OSError:
        time.sleep(0.05)
flwr("run", *run)
sys.stdout.flush()
os.dup2(os.open(outcome, os.O_WRONLY | os.O_CREAT), 1)
flwr("ls", "simulation", "--format", "json")
"""


@dataclass(frozen=True)
class Resources:
    """What the simulated clients run on: `actors` processes take turns at `supernodes` clients."""

    supernodes: int
    actors: int
    threads: int
    """CPUs, and so torch threads, of each actor."""
    gpus: int = 0
    gpu_share: float = 0.0
    """Share of one GPU of each actor; 0 hides the GPUs from it."""


def usable_cpus() -> int:
    """How many CPUs this process may run on: of a job, perhaps not all there are."""
    if sys.platform == "darwin":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def share_out(groups: int, threads: int, actors: int | None, cpus: int, gpus: int) -> Resources:
    """Share a machine's CPUs and GPUs out over the actors of `groups` simulated clients.

    Without `actors`, there are as many as the CPUs hold, at most one per group. A given number is
    kept even where it oversubscribes the CPUs. Raises `UserError` where nothing could run.
    """
    if groups < 1:
        raise UserError("the survey has no groups to simulate: prepare one with at least one group")
    if threads < 1:
        raise UserError(f"an actor cannot run on {threads} threads: ask for at least 1")
    if actors is None:
        actors = min(groups, max(1, cpus // threads))
    if not 1 <= actors <= groups:
        raise UserError(f"{actors} actors cannot serve {groups} groups: ask for 1 to {groups}")
    if gpus == 0:
        return Resources(groups, actors, threads)
    # An actor's share must lie on one GPU, and Ray counts in steps of 1e-4: 2 GPUs for 3 actors
    # means a half each, for of two thirds only one would fit on a GPU and the third would wait.
    return Resources(groups, actors, threads, gpus, 10_000 // -(-actors // gpus) / 10_000)


class Simulation:
    """One run of the Flower app in the directory `app`, from entering the context to leaving it.

    `run_config` overrides values of the app's own configuration. Everything the processes print is
    appended to the file `log`. Leaving the context ends every process, whatever the run does.
    """

    error: str | None = None
    """Why the run failed, once `poll` says so."""

    def __init__(
        self,
        app: Path,
        run_config: Mapping[str, bool | int | float | str],
        resources: Resources,
        log: Path,
    ) -> None:
        self._app = app
        self._run_config = run_config
        self._resources = resources
        self._log = log
        self._outcome: str | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        # Ray adds 68 bytes for its Unix sockets, whose paths may have 107.
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 20 else "/tmp"
        self._root = Path(tempfile.mkdtemp(prefix="plural-", dir=parent)).resolve()
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def poll(self) -> str | None:
        """Return None while the run goes on, then `completed`, `failed` or `stopped`.

        Raises `UserError` with the cause where the run could not be started.
        """
        if self._outcome is None:
            if self._submitter.poll() == 0:
                self._read_outcome()
            elif self._submitter.poll() is not None or self._superlink.poll() is not None:
                self._fail()
        return self._outcome

    def _start(self) -> None:
        home = self._root / "home"
        # Clients prefer a package in the SuperLink's working directory to the submitted app.
        empty = self._root / "empty"
        home.mkdir()
        empty.mkdir()
        _copy_app(self._app, self._root / "app")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        connection = {"address": f"127.0.0.1:{port}", "insecure": True}
        _write_toml(home / "config.toml", {"superlink": {"simulation": connection}})
        _write_toml(self._root / "run.toml", self._run_config)
        _write_toml(self._root / "federation.toml", _federation_config(self._resources))

        bin_dir = Path(sys.executable).parent
        superlink = [str(bin_dir / "flower-superlink"), "--insecure", "--simulation"]
        # By default it would install the app's dependencies anew for every run.
        superlink += ["--disable-runtime-dependency-installation"]
        superlink += ["--host", "127.0.0.1", "--port", str(port)]
        run = [str(self._root / "app"), "simulation", "--stream"]
        run += ["--run-config", str(self._root / "run.toml")]
        run += ["--federation-config", str(self._root / "federation.toml")]

        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:

            def start(command: list[str], stdin: int) -> subprocess.Popen[bytes]:
                process = subprocess.Popen(
                    command,
                    cwd=empty,
                    env=_environment(self._root, home, bin_dir),
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # keeps Ctrl-C in the terminal from it
                )
                self._children.append(process)
                return process

            self._superlink = start(superlink, subprocess.DEVNULL)
            outcome = str(self._root / "outcome.json")
            submitter = [sys.executable, "-c", _SUBMITTER, str(self._root), str(port)]
            self._submitter = start([*submitter, outcome, *run], subprocess.PIPE)

    def _read_outcome(self) -> None:
        listing = json.loads((self._root / "outcome.json").read_text("utf-8"))
        self._outcome, error = listed_outcome(listing, self._logged())
        self.error = error or None

    def _fail(self) -> None:
        logged = self._logged()
        if RUN_STARTED not in logged:
            raise UserError(
                f"Flower's simulation did not start: {cause_in(logged)} (see {self._log})"
            )
        self._outcome = "failed"
        self.error = "Flower's SuperLink ended before the run did"

    def _logged(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode("utf-8", "replace"))

    def _end(self) -> None:
        with _uninterrupted():
            end_processes(self._root)
            for child in self._children:
                child.communicate()


def end_processes(root: Path) -> None:
    """Kill all processes of the simulation whose files lie in `root`, and remove these.

    Processes are found also where their parents are gone already. The calling one is spared.
    Returns once they have let go of their files and locks.
    """
    # Not asked to end first: that takes seconds, and nothing of theirs is kept. Until a pass finds
    # none: what was starting meanwhile is found by the next one.
    killed: set[psutil.Process] = set()
    deadline = time.monotonic() + _GRACE_SECONDS
    while (found := set(_processes(str(root)))) or any(map(_holds_files, killed)):
        if time.monotonic() > deadline:
            break
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        killed |= found
        time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)


def _holds_files(killed: psutil.Process) -> bool:
    """Whether the end of a killed process is still under way."""
    # Its environment goes first, its files with the last thread; what is left then, a zombie, may
    # wait for its parent for ever.
    try:
        return killed.status() != psutil.STATUS_ZOMBIE or killed.num_threads() > 1
    except psutil.Error:
        return False


def _processes(root: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        # Ray's agents overwrite their environment with their title, but keep the directory.
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(_MARKER) == root or process.cwd().startswith(root)
            if ours and process.pid != os.getpid():
                yield process


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold off Ctrl-C and SIGTERM: an impatient second one must not leave processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, handlers, strict=True):
            signal.signal(number, handler)


def _environment(root: Path, home: Path, bin_dir: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        _MARKER: str(root),
        "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        **ENVIRONMENT,
        HOME: str(home),
        POLL_INTERVAL: "0.5",
        "RAY_TMPDIR": str(root),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_prestart_worker_first_driver": "0",  # idle workers besides the actors
    }
    for name in (
        "RAY_ADDRESS",  # would join a cluster that is not ours
        "OMP_NUM_THREADS",  # Ray sets it to an actor's CPUs, unless it is set
        "MKL_NUM_THREADS",
        "PYTHONDONTWRITEBYTECODE",  # the app's bytecode is compiled once for all actors
    ):
        environment.pop(name, None)
    return environment


def _federation_config(resources: Resources) -> dict[str, bool | int | float]:
    config: dict[str, bool | int | float] = {
        "num-supernodes": resources.supernodes,
        "client-resources-num-cpus": resources.threads,
        "client-resources-num-gpus": resources.gpu_share,
        # Flower starts as many actors as these CPUs hold, whatever the machine has.
        "init-args-num-cpus": resources.actors * resources.threads,
        # What clients print would otherwise be lost with Ray's own directory.
        "init-args-log-to-driver": True,
    }
    if resources.gpus:
        config["init-args-num-gpus"] = resources.gpus
    return config


def app_files(app: Path) -> dict[str, Path]:
    """What the app in a directory ships, its pyproject.toml and `fab-include`, by name in it.

    Flower itself looks at every file there, also at those of a virtual environment.
    """
    patterns = read_toml(app / "pyproject.toml")["tool"]["flwr"]["app"]["fab-include"]
    files = [file for pattern in ["pyproject.toml", *patterns] for file in app.glob(pattern)]
    return {file.relative_to(app).as_posix(): file for file in files}


def _copy_app(app: Path, to: Path) -> None:
    for name, file in app_files(app).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to / name)


def _write_toml(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
