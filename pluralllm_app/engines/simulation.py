"""Runs a Flower app in Flower's simulation, in processes of its own, and leaves none behind.

A simulation is a SuperLink on a free port of this machine, one submitted run, and the Ray cluster
that Flower starts for it. `Simulation` owns all of them from entering to leaving its `with` block.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import tomli_w

from pluralllm_app.core.environment import for_processes
from pluralllm_app.engines.app_files import app_files
from pluralllm_app.engines.base import Ended, Engine, Outcome
from pluralllm_app.engines.processes import MARKER, end_processes, uninterrupted
from pluralllm_app.engines.resources import Resources
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_commands import (
    ENVIRONMENT,
    HOME,
    POLL_INTERVAL,
    RUN_STARTED,
    cause_in,
    listed_outcome,
)

_BIN = Path(sys.executable).parent
_PACKAGES = Path(__file__).parents[2]  # where this app is imported from


class Simulation(Engine):
    """One run of the Flower app in a directory.

    Args:
        app: the directory.
        run_config: overrides values of the app's own configuration.
        resources: what the clients run on.
        log: file in the run directory to which everything that the processes print is appended.
    """

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
        self._outcome: Outcome | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        # Ray adds 68 bytes for its Unix sockets, whose paths may have 107.
        try:
            parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 20 else "/tmp"
            self._root = Path(tempfile.mkdtemp(prefix="plural-", dir=parent)).resolve()
        except OSError as error:
            raise UserError(
                f"Flower needs a directory for its temporary files: {error}; set TMPDIR to one "
                "with a path of at most 20 characters"
            ) from error
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def poll(self) -> Outcome | None:
        if self._outcome is None:
            if self._submitter.poll() == 0:
                listing = json.loads((self._root / "outcome.json").read_text("utf-8"))
                status, error = listed_outcome(listing, self._logged())
                self._outcome = Outcome(cast(Ended, status), error)
            elif self._submitter.poll() is not None or self._superlink.poll() is not None:
                self._outcome = self._lost()
        return self._outcome

    def end(self) -> None:
        with uninterrupted():
            end_processes(self._root)
            for child in self._children:
                child.communicate()

    def _start(self) -> None:
        home = self._root / "home"
        # Clients prefer a package in the SuperLink's working directory to the submitted app.
        empty = self._root / "empty"
        home.mkdir()
        empty.mkdir()
        for name, file in app_files(self._app).items():
            copy = self._root / "app" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        port = _free_port()
        connection = {"address": f"127.0.0.1:{port}", "insecure": True}
        _write_toml(home / "config.toml", {"superlink": {"simulation": connection}})
        _write_toml(self._root / "run.toml", self._run_config)
        _write_toml(self._root / "federation.toml", _federation_config(self._resources))

        superlink = [str(_BIN / "flower-superlink"), "--insecure", "--simulation"]
        # By default it would install the app's dependencies anew for every run.
        superlink += ["--disable-runtime-dependency-installation"]
        superlink += ["--host", "127.0.0.1", "--port", str(port)]
        submitter = [sys.executable, "-m", "pluralllm_app.engines.submitter", str(self._root)]
        submitter += [str(port), str(self._root / "outcome.json"), str(self._log.parent)]
        submitter += [str(self._root / "app"), "simulation", "--stream"]
        submitter += ["--run-config", str(self._root / "run.toml")]
        submitter += ["--federation-config", str(self._root / "federation.toml")]

        environment = _environment(self._root, home)
        path = os.pathsep.join(filter(None, [str(_PACKAGES), environment.get("PYTHONPATH")]))
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:

            def start(
                command: list[str], environment: Mapping[str, str], stdin: int
            ) -> subprocess.Popen[bytes]:
                process = subprocess.Popen(
                    command,
                    cwd=empty,
                    env=environment,
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # keeps Ctrl-C in the terminal from it
                )
                self._children.append(process)
                return process

            self._superlink = start(superlink, environment, subprocess.DEVNULL)
            # The submitter alone imports the app from where this process did: the SuperLink's
            # processes import what is submitted.
            self._submitter = start(submitter, environment | {"PYTHONPATH": path}, subprocess.PIPE)

    def _lost(self) -> Outcome:
        """The outcome where a process ended too early, once a run was started."""
        logged = self._logged()
        if RUN_STARTED not in logged:
            raise UserError(
                f"Flower's simulation did not start: {cause_in(logged)} (see {self._log})"
            )
        return Outcome("failed", "Flower's SuperLink ended before the run did")

    def _logged(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode("utf-8", "replace"))


def _environment(root: Path, home: Path) -> dict[str, str]:
    environment = {
        **for_processes(os.environ),
        MARKER: str(root),
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _write_toml(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
