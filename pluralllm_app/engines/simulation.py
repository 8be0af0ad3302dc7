"""Runs a Flower app in Flower's simulation, in processes of its own, and leaves none behind.

A simulation is a process that runs the ServerApp and Flower's simulation, and the Ray cluster that
runs the clients. `Simulation` owns all of them from entering to leaving its `with` block.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pluralllm_app.core.environment import for_processes
from pluralllm_app.engines.base import Engine, Outcome
from pluralllm_app.engines.processes import MARKER, end_processes, uninterrupted
from pluralllm_app.engines.resources import Resources
from pluralllm_app.engines.simulated import OUTCOME, PLAN
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_commands import ENVIRONMENT, HOME, cause_in, cause_of

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
        self._process: subprocess.Popen[bytes] | None = None

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
        assert self._process, "it was not started"
        if self._outcome is None and (code := self._process.poll()) is not None:
            self._outcome = self._ended(code)
        return self._outcome

    def end(self) -> None:
        with uninterrupted():
            end_processes(self._root)
            if self._process:
                self._process.communicate()

    def _start(self) -> None:
        plan = {"app": str(self._app), "run_config": dict(self._run_config)}
        (self._root / PLAN).write_text(json.dumps(plan | _shares(self._resources)), "utf-8")
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pluralllm_app.engines.simulated"),
                    *(str(self._root), str(self._log.parent)),
                ],
                cwd=self._root,
                env=_environment(self._root, self._app),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # keeps Ctrl-C in the terminal from it
            )

    def _ended(self, code: int) -> Outcome:
        """The outcome, once the process has ended with an exit code."""
        file = self._root / OUTCOME
        if file.exists():
            outcome = Outcome(**json.loads(file.read_text("utf-8")))
            return replace(outcome, error=cause_of(outcome.error, self._logged()))
        if code < 0:
            killed = "the run's process was killed, perhaps out of memory: use fewer actors"
            return Outcome("failed", killed)
        return Outcome("failed", f"Flower's simulation broke off: {cause_in(self._logged())}")

    def _logged(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode("utf-8", "replace"))


def _environment(root: Path, app: Path) -> dict[str, str]:
    environment = for_processes(os.environ)
    path = [str(app), str(_PACKAGES), environment.get("PYTHONPATH", "")]
    environment |= {
        MARKER: str(root),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONUNBUFFERED": "1",
        **ENVIRONMENT,
        HOME: str(root / "home"),
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


def _shares(resources: Resources) -> dict[str, object]:
    """What of the machine the simulation has, and each process of its clients."""
    # Flower starts as many of these as the CPUs hold, whatever the machine has.
    machine = {"num_cpus": resources.actors * resources.threads}
    if resources.gpus:
        machine["num_gpus"] = resources.gpus
    client = {"num_cpus": resources.threads, "num_gpus": resources.gpu_share}
    return {"supernodes": resources.supernodes, "machine": machine, "client": client}
