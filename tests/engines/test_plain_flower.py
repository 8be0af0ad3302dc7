"""The app under Flower's own command: `flwr run .` needs no more than any other app."""

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pluralllm_app import client_app
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.demo import demo_name, write_demo
from tests.conftest import ROOT
from tests.support.command import BIN, TINY_RUN, overrides
from tests.support.deployment import free_port
from tests.support.local_grid import LocalGrid
from tests.support.simulations import weights
from tests.support.waiting import PATIENCE, wait_until


@contextlib.contextmanager
def superlink(place: Path, *options: str) -> Iterator[dict[str, str]]:
    """A SuperLink with these options; gives an environment for `flwr run`.

    It ends with the block, with all nodes. `flwr run` would start one, but waits for it for 15
    seconds only. Caches and results of the user are in `user/`.
    """
    home, empty, port = place / "home", place / "empty", free_port()
    home.mkdir()
    empty.mkdir()
    address = f"127.0.0.1:{port}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "ours"\n[superlink.ours]\naddress = "{address}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "XDG_CACHE_HOME": str(place / "user" / "cache"),
        "XDG_DATA_HOME": str(place / "user" / "data"),
        "SUPERLINK": address,
    }

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    command = [BIN / "flower-superlink", "--insecure", *options]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    try:
        with (place / "superlink.log").open("wb") as log:
            subprocess.Popen(command, env=environment, cwd=empty, stdout=log, stderr=log)
        wait_until(answers)
        yield environment
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == str(home):
                    process.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SuperLink of simulations keeps its files."""
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[dict[str, str]]:
    """An environment for `flwr run` in a simulation."""
    with superlink(place, "--simulation") as environment:
        yield environment


def flwr_run(cwd: Path, environment: dict[str, str], *arguments: str | Path) -> str:
    """Run `flwr run` to its end; returns what it prints. Its exit status is 0 in any case."""
    done = subprocess.run(
        [BIN / "flwr", "run", *arguments, "--stream"],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def outcome(environment: dict[str, str]) -> str:
    """How the last run ended, for Flower."""
    command = [BIN / "flwr", "ls", "--format", "json"]
    listing = json.loads(subprocess.check_output(command, env=environment))
    return str(listing["runs"][0]["status"])


@pytest.mark.engine
def test_a_run_without_any_path_takes_the_demo_and_names_its_directory(
    config: dict[str, Scalar], tmp_path: Path, place: Path, environment: dict[str, str]
) -> None:
    survey = place / "user" / "cache" / "pluralllm" / demo_name()
    tiny = TINY_RUN | {"client-optimizer-state": "keep"}
    printed = flwr_run(
        ROOT,
        environment,
        *(".", "--run-config", f'{overrides(TINY_RUN)} client-optimizer-state="keep"'),
        *("--federation-config", "num-supernodes=30"),
    )
    [out] = map(Path, re.findall(r"Run directory: (.+)", printed))
    assert f"Completed: {out}\n" in printed
    assert out.parent == place / "user" / "data" / "pluralllm" / "runs"
    assert f"in {survey}" in printed
    assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert outcome(environment) == "finished:completed"
    local = config | tiny | {"survey": str(survey), "out": str(tmp_path / "local")}
    run_federation(LocalGrid(client_app.app, local, nodes=30), Settings.from_config(local), local)
    assert weights(out) == weights(tmp_path / "local")


@pytest.mark.engine
def test_another_number_of_supernodes_is_one_line_with_the_command_that_works(
    environment: dict[str, str], place: Path
) -> None:
    survey, runs = (
        place / "user" / "cache" / "pluralllm" / demo_name(),
        place / "user" / "data" / "pluralllm" / "runs",
    )
    if not survey.exists():
        write_demo(survey)
    before = [*runs.glob("*")]
    printed = flwr_run(ROOT, environment, ".")
    assert (
        f"the survey {demo_name()} has 30 groups, and the simulation 2 SuperNodes. It needs one "
        'for each group: flwr run . --stream --federation-config "num-supernodes=30"\n'
    ) in printed
    assert "Traceback" not in printed
    assert outcome(environment) == "finished:failed"
    assert [*runs.glob("*")] == before


@pytest.mark.engine
def test_a_supernode_without_a_site_is_told_how_to_get_one(tmp_path: Path) -> None:
    with superlink(tmp_path) as environment:
        command = [BIN / "flower-supernode", "--insecure", "--superlink", environment["SUPERLINK"]]
        command += ["--host", "127.0.0.1", "--port", str(free_port())]
        with (tmp_path / "node.log").open("wb") as log:
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        printed = flwr_run(ROOT, environment, ".", "--run-config", "expected-nodes=1")
    for text in (printed, (tmp_path / "node.log").read_text()):
        said = " ".join(text.split())
        assert "this node has no site: write one with `pluralllm site create`" in said
        assert "start the node with the start.sh that `pluralllm deploy` made" in said
        assert "Traceback" not in text
    [run] = (tmp_path / "user" / "data" / "pluralllm" / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
