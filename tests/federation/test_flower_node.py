"""The contract with Flower's SuperNode; see `test_flower_compat`.

Where a test fails after a new release of Flower, mend `federation/flower_node.py` or the module
beside it that the test names.
"""

import dataclasses
import inspect
import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from flwr.common import constant
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
)
from flwr.supercore import run
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supernode import fleet_http_connection
from flwr.supernode import start_client_internal as loop
from flwr.supernode.fleet_http_client import FleetHttpClient

from pluralllm_app.engines.app_files import own_files
from pluralllm_app.federation import flower_executor, flower_node, flower_pauses
from pluralllm_app.federation.audit_log import AuditLog
from pluralllm_app.federation.flower_node import NotLetInError


def source(module: str) -> str:
    """The source of one of Flower's modules."""
    return inspect.getsource(import_module(module))


def refusal(code: int) -> httpx.HTTPStatusError:
    response = httpx.Response(400, json=FlowerError(code, "why").to_json("why"))
    return httpx.HTTPStatusError("", request=httpx.Request("POST", "/"), response=response)


def test_flowers_supernode_asks_by_a_client_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_http_connection, "FleetHttpClient", FleetHttpClient)
    assert "FleetHttpClient.from_server_address" in source("flwr.supernode.fleet_http_connection")
    answers = iter([refusal(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED), 3, refusal(0)])
    left = []

    def activate(client: object, request: ActivateNodeRequest) -> ActivateNodeResponse:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return ActivateNodeResponse(node_id=answer)

    def deactivate(client: object, request: DeactivateNodeRequest) -> DeactivateNodeResponse:
        left.append(request.node_id)
        raise refusal(0)  # the node was removed meanwhile

    def enter(
        ask: Callable[[], ActivateNodeResponse], leave: Callable[[ActivateNodeResponse], None]
    ) -> ActivateNodeResponse:
        with pytest.raises(NotLetInError):
            ask()
        answer = ask()
        leave(answer)
        with pytest.raises(httpx.HTTPStatusError):
            ask()
        return answer

    def supernode() -> None:
        client = fleet_http_connection.FleetHttpClient
        assert issubclass(client, FleetHttpClient)
        assert client.__new__(client).ActivateNode(ActivateNodeRequest()).node_id == 3

    monkeypatch.setattr(FleetHttpClient, "ActivateNode", activate)
    monkeypatch.setattr(FleetHttpClient, "DeactivateNode", deactivate)
    monkeypatch.setattr("flwr.supernode.cli.flower_supernode", supernode)
    monkeypatch.setattr(loop, "_pull_and_store_message", loop._pull_and_store_message)
    for name in ("_push_messages", "subprocess", "time"):
        monkeypatch.setattr(loop, name, getattr(loop, name))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    flower_node.run_supernode(enter, own_files, AuditLog(tmp_path / "audit.jsonl"))
    assert left == [3]


def test_flowers_loop_takes_a_message_as_we_replace_it() -> None:
    """Called by its name in the module, with all arguments named; what it does for a new run."""
    text = source("flwr.supernode.start_client_internal")
    call = text[text.index("run_id = _pull_and_store_message(") :].partition(")")[0]
    for name in ("state", "object_store", "receive", "get_run", "get_fab"):
        assert f"{name}={name if name != 'object_store' else 'store'}," in call
    assert text.index("run_info = get_run(run_id)") < text.index("fab = get_fab(run_info.fab_hash")
    assert "_insert_message(reply, state, object_store)" in text
    call = text[text.index("            _push_messages(") :].partition(")")[0]
    for name in ("state=state", "object_store=store", "send=send"):
        assert f"{name}," in call
    assert "ids_obj_to_send, session_id = send(message, object_tree, clientapp_runtime)" in text
    assert {"fab_id", "fab_version", "fab_hash", "primary_task_type"} <= {
        each.name for each in dataclasses.fields(run.Run)
    }


def test_flowers_loop_starts_and_waits_by_what_we_replace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = source("flwr.supernode.start_client_internal")
    assert re.findall(r"subprocess\.(?!$)\w+", text) == ["subprocess.Popen"]
    assert f'command = ["{flower_executor.PROGRAM}"]' in text
    assert re.findall(r"\btime\.\w+\(.*", text) == [
        "time.sleep(3)",
        "time.sleep(0.5)",
        "time.sleep(0.5)",
    ]
    text = source("flwr.supercore.superexec.executor.subprocess_executor")
    assert set(re.findall(r"subprocess\.\w+", text)) == {"subprocess.Popen", "subprocess.DEVNULL"}
    assert TASK_TYPE_TO_COMMAND[TaskType.CLIENT_APP] == "flwr-clientapp"
    assert "SubprocessExecutor()" in source("flwr.supercore.superexec.executor.factory")

    for name in ("_push_messages", "subprocess", "time"):
        monkeypatch.setattr(loop, name, getattr(loop, name))
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(loop, "_push_messages", lambda **arguments: None)
    flower_pauses.look_sooner()
    loop.time.sleep(3)
    loop._push_messages()
    loop.time.sleep(3)
    assert slept == [3, 0.5]

    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", started.append)
    flower_executor.fork_apps()
    loop.subprocess.Popen([flower_executor.PROGRAM, "--parent-pid", "7"])
    [command] = started
    assert command == [sys.executable, "-c", flower_executor.RUN, "--parent-pid", "7"]
    with pytest.raises(ValueError, match="Flower starts other, not flower-superexec"):
        loop.subprocess.Popen(["other"])


def test_a_node_looks_soon_after_an_answer_and_less_often_later() -> None:
    now = 100.0
    pauses = flower_pauses.Pauses(lambda: now)
    assert pauses.instead_of(3) == 3
    pauses.answered()
    waited = []
    for _ in range(14):
        waited.append(pauses.instead_of(3))
        now += waited[-1]
    assert waited == sorted(waited)
    assert waited[:4] == [0.5] * 4
    assert waited[-1] == 3
    assert pauses.instead_of(0.5) == 0.05


def test_a_node_installs_no_dependencies_of_an_app() -> None:
    assert constant.RUNTIME_DEPENDENCY_INSTALL is False
    assert "add_args_runtime_dependency_install(parser)" in source(
        "flwr.supernode.cli.flower_supernode"
    )


def test_a_node_that_is_cut_off_while_tls_begins_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flower's own takes each text with "ssl" for a reason to end."""
    client = caught_client(monkeypatch, tmp_path / "audit.jsonl")
    told = {
        "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol": False,
        "_ssl.c:980: The handshake operation timed out": False,
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed": True,
    }
    give_up = make_simple_http_retry_invoker().should_giveup
    for text, ends in told.items():

        def call(*_: object, text: str = text, **__: object) -> None:
            raise httpx.ConnectError(text)

        monkeypatch.setattr(FleetHttpClient, "_unary_unary", call)
        with pytest.raises(httpx.ConnectError) as error:
            client.PullMessages(PullMessagesRequest())
        assert bool(give_up(error.value)) is ends


def caught_client(monkeypatch: pytest.MonkeyPatch, audit: Path) -> FleetHttpClient:
    """The client that Flower's SuperNode gets, without a connection."""
    monkeypatch.setattr(fleet_http_connection, "FleetHttpClient", FleetHttpClient)
    monkeypatch.setattr("flwr.supernode.cli.flower_supernode", lambda: None)
    monkeypatch.setattr(loop, "_pull_and_store_message", loop._pull_and_store_message)
    for name in ("_push_messages", "subprocess", "time"):
        monkeypatch.setattr(loop, name, getattr(loop, name))
    monkeypatch.setenv("FLWR_HOME", str(audit.parent))
    flower_node.run_supernode(lambda ask, leave: ask(), own_files, AuditLog(audit))
    client = fleet_http_connection.FleetHttpClient
    return client.__new__(client)
