"""The fence around the SuperLink: other machines reach the Fleet API alone."""

import asyncio
import os
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flwr.superlink import extensions
from starlette.responses import PlainTextResponse
from starlette.types import Message

from pluralllm_app.deploy import superlink
from pluralllm_app.deploy.admission import Admission
from pluralllm_app.deploy.superlink import LocalControl
from pluralllm_app.federation import registration


@pytest.fixture
def _superlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's command, which here does nothing, and which ours changes; no app is installed."""
    monkeypatch.setattr(superlink, "OwnApp", Mock())
    monkeypatch.setattr(import_module("flwr.superlink.cli.flower_superlink"), "uvicorn", None)
    monkeypatch.setattr(extensions, "get_middleware", tuple)
    monkeypatch.setattr("flwr.superlink.cli.flower_superlink", lambda: None)


def status(path: str, client: str) -> int:
    """The status that a request from an address gets; 200 where it is passed on."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {"type": "http", "path": path, "client": (client, 1), "method": "POST"}
    asyncio.run(LocalControl(PlainTextResponse("passed on"))(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/openapi.json",
        "/v1/fleet",
        "//v1/fleet/x",
    ],
)
def test_other_machines_are_refused(path: str) -> None:
    for client in ("192.0.2.9", "10.0.0.1", "2001:db8::9", "0.0.0.0"):
        assert status(path, client) == 403
    for client in ("127.0.0.1", "::1"):
        assert status(path, client) == 200


def test_nodes_are_served_from_anywhere() -> None:
    assert status("/v1/fleet/pull-messages", "192.0.2.9") == 200


@pytest.mark.usefixtures("_superlink")
@pytest.mark.parametrize(
    "name",
    ["FORWARDED_ALLOW_IPS", "FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API"],
)
def test_the_environment_opens_no_way_around(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    started = []
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(
        "flwr.superlink.cli.flower_superlink", lambda: started.append(dict(os.environ))
    )
    superlink.main()
    [environment] = started
    assert name not in environment
    superlink.OwnApp.of.return_value.install_alone.assert_called_once_with()
    assert [each.cls for each in extensions.get_middleware()] == [LocalControl, Admission]


@pytest.mark.usefixtures("_superlink")
@pytest.mark.parametrize(("setting", "mib"), [("", 6), ("6", 6), ("64", 64)])
def test_a_setting_says_what_a_node_may_send(
    monkeypatch: pytest.MonkeyPatch, setting: str, mib: int
) -> None:
    monkeypatch.setenv(superlink.LARGEST, setting)
    superlink.main()
    assert extensions.get_middleware()[1].kwargs["largest"] == mib * 2**20


@pytest.mark.parametrize("setting", ["5", "0", "-6", "6.5", "much"])
def test_a_setting_below_a_piece_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(superlink.LARGEST, setting)
    with pytest.raises(SystemExit, match=f"PLURALLLM_MESSAGE_MIB='{setting}'.* above 5"):
        superlink.main()


@pytest.mark.slow
@pytest.mark.usefixtures("_superlink")
def test_the_apps_are_told_where_groups_are_registered(
    monkeypatch: pytest.MonkeyPatch, made: Path, tmp_path: Path
) -> None:
    """By an option that every start script has, also those of earlier versions."""
    assert '--ssl-certfile "$here/server.crt"' in (made / "server/start.sh").read_text()
    server, elsewhere = made / "server", tmp_path
    for directory, told in ((server, str(server)), (elsewhere, "")):
        monkeypatch.setenv(registration.SERVER, "/what/a/user/had/set")
        certificate = str(directory / "server.crt")
        monkeypatch.setattr("sys.argv", ["superlink", "--ssl-certfile", certificate, "--port", "1"])
        superlink.main()
        assert os.environ.get(registration.SERVER, "") == told
