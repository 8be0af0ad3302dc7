"""A federation of real processes on loopback: SuperLink, SuperNodes and submitted runs.

    with Deployment(tmp_path / "there", survey, ["Alder", "Birch"]) as deployment:
        nodes = deployment.start_all()
        run = deployment.submit({"rounds": 2, "out": str(tmp_path / "run")})
        run.wait()

Leaving the block kills every process of it. What each prints is in `logs/`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from unittest.mock import patch
from uuid import UUID, uuid4

import psutil
import tomli_w
from click.testing import Result

from pluralllm_app import client_app
from pluralllm_app.cli.main import app
from pluralllm_app.core.names import file_slugs
from pluralllm_app.deploy.control import connect
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.groups import admit_group
from pluralllm_app.deploy.invitation import INVITATION, read_invitation
from pluralllm_app.deploy.joining import join
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.errors import UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.support.command import CliRunner
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DEAD_PROXIES = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
}
"""As institutes have them; nothing listens there, and all of a test stays on this machine."""
_MARKER = "PLURALLLM_TEST_DEPLOYMENT"
Process = subprocess.Popen[bytes]


def model_weights(run: Path) -> bytes:
    """The last weights of the run in a directory."""
    return (run / "model" / "model.safetensors").read_bytes()


def command(*arguments: str | Path) -> Result:
    """`pluralllm deploy` with these arguments, in this process."""
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["deploy", *map(str, arguments)])


class Deployment:
    """A directory of `pluralllm deploy init` with the groups' sites, and its processes.

    Args:
        path: directory to make: `federation/` of `deploy init`, `app/`, `logs/`.
        survey: to take the sites from.
        groups: their names.
        servers: names and addresses of the server; nodes take the first.
    """

    def __init__(
        self,
        path: Path,
        survey: PreparedSurvey,
        groups: Sequence[str],
        servers: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        self.path = path.resolve()
        self.dir = self.path / "federation"
        self.groups = list(groups)
        self.logs = self.path / "logs"
        self.logs.mkdir(parents=True)
        self.port = free_port()
        initialise(self.dir, list(servers), self.port, survey.path)
        self.slugs = {group: add_node(self.dir, survey, group) for group in groups}
        shutil.copytree(
            ROOT / "pluralllm_app",
            self.path / "app" / "pluralllm_app",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copyfile(ROOT / "pyproject.toml", self.path / "app" / "pyproject.toml")
        self.superlink: Process
        self._children: list[Process] = []

    def node_dir(self, group: str) -> Path:
        """The directory of a group's machine."""
        return self.dir / "nodes" / self.slugs[group]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while found := self.processes():
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            for child in self._children:
                child.wait()

    def start_superlink(self, prefix: Sequence[str] = ()) -> None:
        """Start the SuperLink, by a command that runs another if given; wait until it answers."""
        process = self.start("superlink", [*prefix, self.dir / "server" / "start.sh"])
        wait_until(lambda: process.poll() is not None or self.online() is not None)
        assert process.poll() is None, self.log("superlink")
        self.superlink = process

    def register(self) -> None:
        """Register every group's key."""
        with connect(self.dir) as control:
            for slug in self.slugs.values():
                control.register(slug)

    def start_all(self) -> list[Process]:
        """Start the SuperLink and all nodes, and wait until they are online; returns the nodes."""
        self.start_superlink()
        self.register()
        nodes = [self.start_node(group) for group in self.groups]
        self.wait_online(len(nodes))
        return nodes

    def run_dir(self, name: str) -> Path:
        """The directory of a run that `deploy_run` submits."""
        return self.dir / "server" / "runs" / name

    def deploy_run(self, name: str, settings: Mapping[str, Scalar]) -> Process:
        """Submit a run by `pluralllm deploy run`, which ends with it."""
        overrides = " ".join(f"{key}={value}" for key, value in settings.items())
        out = self.run_dir(name)
        submit = ("pluralllm", "deploy", "run", self.dir, "--out", out, "-c", overrides)
        return self.start(name, submit)

    def start_node(self, group: str) -> Process:
        """Start a group's SuperNode, without waiting for it."""
        return self.start(self.slugs[group], [self.node_dir(group) / "start.sh"])

    def forward(self, group: str, port: int) -> None:
        """Let a group's node call this port instead of the SuperLink's, once it is started."""
        script = self.node_dir(group) / "start.sh"
        direct, text = f"--superlink 127.0.0.1:{self.port} ", script.read_text("utf-8")
        assert direct in text
        script.write_text(text.replace(direct, f"--superlink 127.0.0.1:{port} "), "utf-8")

    def end_node(self, group: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a group's SuperNode and all its children; wait until they are gone."""
        for process in self.processes(group):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        wait_until(lambda: not self.processes(group))

    def wait_online(self, nodes: int) -> None:
        """Wait until exactly so many nodes are online."""
        wait_until(lambda: self.online() == nodes)

    def submit(
        self, run_config: Mapping[str, Scalar], name: str = "run", app: Path | None = None
    ) -> Process:
        """Submit a run of an app, by default of the one installed, by Flower's command.

        It ends with the run.

        It prints what the ServerApp does, and exits 0 also where the run failed.
        """
        file = self.path / f"{name}.toml"
        file.write_text(tomli_w.dumps(run_config), encoding="utf-8")
        command: list[str | Path] = ["flwr", "run", app or self.path / "app", "pluralllm"]
        command += ["--stream", "--run-config", file]
        # Flower's own command takes the proxies as they are.
        environment = {"FLWR_HOME": str(self.dir / "flwr-home"), "NO_PROXY": "127.0.0.1"}
        return self.start(name, command, environment)

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a command of this deployment, appending what it prints to its log."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.logs,
                env={
                    **os.environ,
                    _MARKER: str(self.path),
                    "PYTHONPATH": str(self.path / "app"),  # as it is installed on every machine
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    "PYTHONUNBUFFERED": "1",
                    "FLWR_TELEMETRY_ENABLED": "0",
                    "FLWR_DISABLE_UPDATE_CHECK": "1",
                    **DEAD_PROXIES,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(process)
        return process

    def kill(self, process: Process, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process alone and wait until it is gone; its children see to it."""
        process.send_signal(number)
        process.wait()

    def log(self, name: str) -> str:
        """What a process printed: superlink, the slug of a group, or the name of a run."""
        return (self.logs / f"{name}.log").read_text("utf-8", "replace")

    def weights_without(
        self,
        settings: Mapping[str, Scalar],
        out: Path,
        experiment: str | None = None,
        groups: Sequence[str] = (),
    ) -> bytes:
        """The weights that a run on the same sites gives in this process, without Flower.

        Args:
            experiment: its name, which keys the draws of groups that keep something.
            groups: that take part, if not all.
        """
        config = read_defaults(ROOT / "pyproject.toml") | dict(settings) | {"out": str(out)}
        groups = groups or self.groups
        grid = InProcessGrid(client_app.app, config, nodes=len(groups))
        for context, group in zip(grid.contexts.values(), groups, strict=True):
            node = self.node_dir(group)
            context.node_config = {"site": str(node / "site"), "node": str(node)}
        named = UUID(experiment) if experiment else uuid4()
        with patch("pluralllm_app.federation.rounds.uuid4", lambda: named):
            run_federation(grid, Settings.from_config(config), config)
        return model_weights(out)

    def processes(self, group: str | None = None) -> list[psutil.Process]:
        """Every process of this deployment or of one group's node, also those left by parents."""
        wanted = {_MARKER: str(self.path)}
        if group is not None:
            wanted["FLWR_HOME"] = str(self.node_dir(group) / "state" / "flwr-home")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().items() >= wanted.items():
                    found.append(process)
        return found

    def online(self) -> int | None:
        """How many nodes count as online; None where no SuperLink answers."""
        try:
            with connect(self.dir) as control:
                return sum(
                    node.status == "online"
                    for node in control.by_group(control.nodes_by_key()).values()
                )
        except UserError:
            return None


def add_node(path: Path, survey: PreparedSurvey, group: str) -> str:
    """Make a group's site and its node in `path`/nodes, and let it in; returns its slug."""
    invitation = read_invitation(path / INVITATION)
    with TemporaryDirectory() as place:
        site = write_site(survey, group, Path(place) / "site").survey.path
        node = join(invitation, site, path / "nodes" / file_slugs([group])[group])
    return admit_group(path, node.request)


def deployed(
    path: Path,
    survey: PreparedSurvey,
    groups: Iterable[str] = (),
    servers: Iterable[str] = ("127.0.0.1",),
) -> Path:
    """Make a deployment with these groups, and their nodes in nodes/."""
    made = initialise(path, list(servers), 9443, survey.path).path
    for group in groups:
        add_node(made, survey, group)
    return made


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
