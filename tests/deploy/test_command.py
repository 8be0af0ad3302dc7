"""The commands that need a SuperLink, against one that only keeps nodes."""

import re
import shutil
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
from flwr.app import Message
from flwr.common.serde import user_config_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore.error import ApiErrorCode, FlowerError
from typer.testing import CliRunner, Result

from pluralllm_app import client_app
from pluralllm_app.cli.main import app
from pluralllm_app.deploy import keys, submit
from pluralllm_app.deploy.layout import initialise, read_groups
from pluralllm_app.engines.base import Ended, Outcome
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.errors import UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.writer import read_run, reopen_record
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY

GROUPS = ["Alder", "Birch", "Élan 中/.."]


class SuperLink:
    """Keeps nodes as the SuperLink's Control API does; `start` runs what is submitted."""

    def __init__(self) -> None:
        self.infos: list[NodeInfo] = []
        self.start: Callable[[dict[str, Scalar]], None]
        self.submitted: dict[str, Scalar]
        self.status: RunStatus | KeyboardInterrupt | None = None

    def ListNodes(self, _: ListNodesRequest) -> ListNodesResponse:
        return ListNodesResponse(nodes_info=self.infos)

    def RegisterNode(self, request: RegisterNodeRequest) -> RegisterNodeResponse:
        if any(info.public_key == request.public_key for info in self.infos):
            error = FlowerError(ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE, "in use")
            response = httpx.Response(409, json=error.to_json("in use"))
            raise httpx.HTTPStatusError("", request=httpx.Request("POST", "/"), response=response)
        info = NodeInfo(
            node_id=len(self.infos) + 1,
            status="registered",
            registered_at="2026-01-02T03:04:05+00:00",
            public_key=request.public_key,
            name=request.name,
        )
        self.infos.append(info)
        return RegisterNodeResponse(node_id=info.node_id)

    def StartRun(self, request: StartRunRequest) -> StartRunResponse:
        self.status = RunStatus(status="running")
        self.start(user_config_from_proto(request.override_config))
        return StartRunResponse(run_id=7)

    def ListRuns(self, request: ListRunsRequest) -> ListRunsResponse:
        if self.status is None:
            raise httpx.ConnectError("refused")
        if isinstance(self.status, KeyboardInterrupt):
            raise self.status
        return ListRunsResponse(run_dict={request.run_id: Run(status=self.status)})

    def close(self) -> None:
        pass

    def UnregisterNode(self, request: UnregisterNodeRequest) -> UnregisterNodeResponse:
        self.infos[request.node_id - 1].status = "unregistered"
        return UnregisterNodeResponse()


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    """A SuperLink, which the commands reach."""
    superlink = SuperLink()

    monkeypatch.setattr(submit, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(submit, "PATIENCE_SECONDS", 0.3)
    client = SimpleNamespace(from_server_address=lambda *_, **__: superlink)
    monkeypatch.setattr("flwr.supercore.control.ControlHttpClient", client)
    return superlink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return initialise(tmp_path / "there", ["127.0.0.1"], GROUPS, 9443).path


def deploy(*arguments: str | Path) -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["deploy", *map(str, arguments)])


def test_nodes_are_registered_once(superlink: SuperLink, path: Path) -> None:
    one = deploy("register", path, "--group", "Birch", "--group", "Birch")
    assert (one.exit_code, one.output) == (0, "Birch: registered as node 1\n")
    rest = deploy("register", path)
    assert rest.output.splitlines() == [
        "Alder: registered as node 2",
        "Birch: is registered already, as node 1",
        "Élan 中/..: registered as node 3",
    ]
    assert [info.name for info in superlink.infos] == ["birch", "alder", "elan"]


def test_a_node_that_cannot_be_registered_keeps_no_other(superlink: SuperLink, path: Path) -> None:
    deploy("register", path, "--group", "Alder")
    superlink.infos[0].status = "unregistered"
    (path / "server/nodes/birch.pub").write_text("damaged\n")
    done = deploy("register", path)
    assert done.output == "Élan 中/..: registered as node 2\n"
    assert isinstance(done.exception, UserError)
    first, alder, birch = str(done.exception).splitlines()
    assert first == "not registered:"
    assert alder.startswith("Alder: the node's key was registered once and unregistered")
    assert "takes no key twice" in alder
    assert birch.startswith("Birch: cannot read the public key")


@pytest.mark.parametrize("key", [None, b"damaged"])
def test_a_group_is_shut_out_without_its_key(
    superlink: SuperLink, path: Path, key: bytes | None
) -> None:
    deploy("register", path)
    file = path / "server/nodes/birch.pub"
    file.unlink()
    if key:
        file.write_bytes(key)
    assert "0 of 3 groups online" in deploy("status", path).output
    done = deploy("remove", path, "Birch")
    assert "node 2 is unregistered" in done.output
    assert superlink.infos[1].status == "unregistered"
    assert "birch" not in read_groups(path)


def test_a_group_is_shut_out_with_all_its_keys(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    shutil.copy(path / "nodes/alder/node.key.pub", path / "server/nodes/birch.pub")
    superlink.infos[0].name = "birch"
    deploy("remove", path, "Birch")
    assert [info.status for info in superlink.infos[:2]] == ["unregistered"] * 2


def test_a_removed_group_is_forgotten(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    done = deploy("remove", path, unicodedata.normalize("NFD", " Élan 中/.."))
    assert done.output == (
        f"Élan 中/..: node 3 is unregistered\nÉlan 中/..: the group is removed from {path}\n"
    )
    assert superlink.infos[2].status == "unregistered"
    assert read_groups(path) == {"alder": "Alder", "birch": "Birch"}
    assert not (path / "server/nodes/elan.pub").exists()
    assert deploy("register", path).exit_code == 0
    for info in superlink.infos[:2]:
        info.status = "online"
    status = deploy("status", path)
    assert (status.exit_code, "2 of 2 groups online" in status.output) == (0, True), status.output

    again = deploy("remove", path, "Elan")
    assert isinstance(again.exception, UserError)
    assert "no group 'Elan'" in str(again.exception)


def test_the_status_says_when_nodes_were_last_seen(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    online, offline, _ = superlink.infos
    day = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
    # Flower counts a node as online until two heartbeats are missed.
    online.status, online.heartbeat_interval, online.online_until = "online", 30, day + 60
    online.last_activated_at = "2026-01-01T00:00:00+00:00"
    offline.status, offline.last_deactivated_at = "offline", "2026-01-02T13:00:00+00:00"
    (path / "server/groups.json").write_text('{"alder": "Alder", "birch": "Birch"}')

    done = deploy("status", path)
    assert done.exit_code == 1
    for row in (
        r"Alder .* 1 .* online, seen 12:00:00 ",
        r"Birch .* 2 .* offline since 01-02 13:00:00 ",
        r"no group \(elan\) .* 3 .* never connected ",
        r"FLWR_HOME=\S+/there/flwr-home flwr supernode unregister NODE_ID pluralllm$",
        r"^1 of 2 groups online$",
    ):
        assert re.search(row, done.output, re.MULTILINE), (row, done.output)


def test_the_status_warns_of_the_certificate(
    superlink: SuperLink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "expire" not in deploy("status", path).output
    monkeypatch.setattr(keys, "SERVER_DAYS", 20)
    other = initialise(path.parent / "other", ["127.0.0.1"], GROUPS, 9443).path
    shutil.copy(other / "server/server.crt", path / "server")
    assert re.match(r"\S+/server\.crt expires on \d{4}-", deploy("status", path).output)


def test_a_group_is_removed_that_was_unregistered_before(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    superlink.infos[0].status = "unregistered"
    (path / "server/nodes/alder.pub").unlink()
    for group in GROUPS:
        assert deploy("remove", path, group).exit_code == 0
    assert read_groups(path) == {}
    assert deploy("register", path).exit_code == 0


def test_a_group_gets_a_new_key(superlink: SuperLink, path: Path) -> None:
    old = (path / "server/nodes/alder.pub").read_bytes()
    deploy("register", path)
    deploy("remove", path, "Alder")
    shutil.rmtree(path / "nodes/alder")  # it is on its machine
    added = deploy("add", path, "Alder")
    assert added.exit_code == 0, added.output
    public = (path / "nodes/alder/node.key.pub").read_bytes()
    assert f"node alder: {keys.fingerprint(public)}  Alder\n" in added.output
    assert "Alder: registered as node 4\n" in deploy("register", path).output
    superlink.infos[3].status = "unregistered"
    assert "takes no key twice" in str(deploy("register", path).exception)
    assert public != old


Serve = Callable[[SuperLink, dict[str, Scalar]], None]


def completes(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    """Run the app in this process, as if each partition of a survey were a node."""
    grid = InProcessGrid(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    superlink.status = RunStatus(status="finished", sub_status="completed")


def fails(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    details = "ServerApp failed with exception: [no] node ever came"
    superlink.status = RunStatus(status="finished", sub_status="failed", details=details)


def stops(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    superlink.status = RunStatus(status="finished", sub_status="stopped")


def dies(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    superlink.status = None


def completes_and_dies(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    completes(superlink, config)
    superlink.status = None


def is_cut_off(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    """The SuperLink dies with the second round's reply."""

    class Dying(InProcessGrid):
        def ask(self, message: Message) -> Message | None:
            if message.content.config_records.get("config", {}).get("round") == 2:
                raise SystemExit
            return super().ask(message)

    with pytest.raises(SystemExit):
        run_federation(Dying(client_app.app, config, nodes=5), Settings.from_config(config), config)
    reopen_record(Path(str(config["out"])))  # kill -9 leaves no word there
    superlink.status = None


@pytest.fixture
def run(superlink: SuperLink, path: Path, tiny_survey: PreparedSurvey) -> Callable[..., Result]:
    """`deploy run` of a tiny run; the argument says what becomes of it."""

    def run(serve: Serve, *arguments: str | Path) -> Result:
        def start(config: dict[str, Scalar]) -> None:
            superlink.submitted = config
            serve(superlink, config | {"survey": str(tiny_survey.path)})

        superlink.start = start
        return deploy("run", path, *arguments)

    return run


OVERRIDES = " ".join(f"{key}={value}" for key, value in TINY.items())


def test_a_run_is_submitted_and_shown(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    deploy("register", path, "--group", "Alder", "--group", "Birch")
    superlink.infos[0].status = "online"
    done = run(completes, "-c", OVERRIDES)
    assert done.exit_code == 0, (done.output, done.exception)
    [out] = (path / "server/runs").iterdir()
    for line in (
        "Birch: its node is not connected",
        "Élan 中/..: its node is not registered",
        "1 of 3 nodes are online",
        f"Run 7 in {out}",
        "Groups never trained on: mean ",
        f"The trained predictor: {out}/model",
    ):
        assert line in done.output
    assert superlink.submitted["expected-nodes"] == 3
    assert superlink.submitted["survey"] == ""
    assert {key: superlink.submitted[key] for key in TINY} == TINY
    assert read_run(out)["status"] == "completed"


def test_a_run_that_failed_has_an_exit_status(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(fails, "--out", out, "-c", OVERRIDES + " expected-nodes=1")
    assert "0 of 1 nodes are online" in done.output
    assert isinstance(done.exception, UserError)
    first, *rest = str(done.exception).splitlines()
    assert first == "the run failed: [no] node ever came"
    assert "now Birch: its node is not registered, see `pluralllm deploy register`" in rest
    assert not out.exists()
    done = run(dies, "--out", out, "-c", OVERRIDES)  # nothing is in it
    assert "no SuperLink answers" in str(done.exception)
    assert "begin it again, with another --out" in done.exception.__notes__[0]
    assert str(run(stops, "--out", out, "-c", OVERRIDES).exception).startswith(
        "the run was stopped\n"
    )
    out.mkdir()
    (out / "file").touch()
    done = run(completes, "--out", out, "-c", OVERRIDES)
    assert "is not empty" in str(done.exception)


def test_the_record_tells_where_the_superlink_does_not(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run(completes_and_dies, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 0, (done.output, done.exception)


def test_one_lost_answer_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(submit, "time", clock)
    answers: list[Ended | Literal[""] | None] = ["", None, "", None, None, None, None, "completed"]

    def outcome(run_id: int) -> Outcome | None:
        assert run_id == 7
        if (answer := answers.pop(0)) is None:
            raise httpx.ReadTimeout("lost")
        return Outcome(answer) if answer else None

    control: Any = SimpleNamespace(outcome=outcome, start_run=lambda files, run_config: 7)
    with submit.Submitted(control, {}) as submitted:
        for _ in range(6):
            clock.now += submit.POLL_SECONDS
            assert submitted.poll() is None
        clock.now += submit.POLL_SECONDS
        with pytest.raises(httpx.ReadTimeout):  # 20 seconds after the last answer
            submitted.poll()


def test_a_run_that_was_cut_off_goes_on(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out, whole = tmp_path / "a run", tmp_path / "whole"
    done = run(is_cut_off, "--out", out, "-c", OVERRIDES)
    assert "no SuperLink answers" in str(done.exception)
    assert f"pluralllm deploy run {path} --resume '{out}'" in done.exception.__notes__[0]
    for wrong in (["--out", out], ["-c", "rounds=3"], ["--config", out]):
        done = run(completes, "--resume", out, *wrong)
        assert "give it alone" in str(done.exception)
    deploy("add", path, "Later")  # it waits for those that it began with
    done = run(completes, "--resume", out)
    assert done.exit_code == 0, (done.output, done.exception)
    assert superlink.submitted["expected-nodes"] == 0
    assert "Alder: its node is not registered" in done.output
    assert "Later" not in done.output
    assert "0 of 5 nodes are online" in done.output
    assert run(completes, "--out", whole, "-c", OVERRIDES).exit_code == 0
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    done = run(completes, "--resume", out)
    assert "is completed: there is nothing to resume" in str(done.exception)


def test_an_interrupted_command_leaves_the_run(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    def interrupt(superlink: SuperLink, config: dict[str, Scalar]) -> None:
        superlink.status = KeyboardInterrupt()

    done = run(interrupt, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 130
    flwr = f"FLWR_HOME={path / 'flwr-home'} flwr"
    assert f"The run goes on, see {tmp_path}/run. To end it: {flwr} stop 7 pluralllm" in done.output

    def interrupt_earlier(superlink: SuperLink, config: dict[str, Scalar]) -> None:
        raise KeyboardInterrupt

    done = run(interrupt_earlier, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 130
    assert f"whether the run goes on tells {flwr} ls pluralllm" in done.output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("strategi=fedavg", "did you mean 'strategy'"),
        ("rounds=0", "rounds"),
        ("strategy=fedprox fedprox.mu=-1", "fedprox.mu"),
        ("survey='/x'", "each node has its own site"),
        ("expected-nodes=4", "there are 3 groups"),
    ],
)
def test_wrong_settings_are_not_submitted(
    path: Path, run: Callable[..., Result], setting: str, message: str
) -> None:
    done = run(completes, "-c", setting)
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert not (path / "server/runs").exists()
