"""The contract with Flower: each test names one thing that this app relies on.

Where one fails after a new release of Flower, mend `federation/flower_compat.py`,
`flower_commands.py` or `flower_node.py`, and nothing else.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp.client_app import ClientAppException
from flwr.common import constant
from flwr.common.constant import ErrorCode
from flwr.common.logger import FLOWER_LOGGER
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StartRunResponse,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore import run
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import extensions
from flwr.supernode import fleet_http_connection
from flwr.supernode import start_client_internal as loop
from flwr.supernode.fleet_http_client import FleetHttpClient
from google.protobuf.message import Message as Proto
from starlette.middleware import Middleware

from pluralllm_app.deploy import scripts
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.federation import flower_commands, flower_compat, flower_node
from pluralllm_app.federation.audit_log import AuditLog
from pluralllm_app.federation.flower_node import NotLetInError


def source(module: str) -> str:
    """The source of one of Flower's modules."""
    return inspect.getsource(import_module(module))


def request() -> Message:
    flower_compat.identify_process()
    return Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)


# ---- In the process of an app ----


def test_a_process_has_an_identity() -> None:
    flower_compat.identify_process()
    assert (TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id) == (1, 1, 1)


def test_a_message_can_be_given_an_id() -> None:
    message = request()
    assert message.metadata.message_id == ""
    given = flower_compat.give_id(message)
    assert message.metadata.message_id == given != flower_compat.give_id(request())


def test_the_logger_is_flowers() -> None:
    assert flower_compat.LOGGER is FLOWER_LOGGER


def test_an_error_reply_is_as_flower_makes_it() -> None:
    reply = flower_compat.exception_reply(ValueError("why"), request())
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert reply.error.reason == str(ClientAppException) + ":<'why'>"
    assert not flower_compat.node_was_lost(reply)
    assert flower_compat.error_reason(reply) == "why"
    for module in (
        "flwr.supernode.runtime.run_clientapp",
        "flwr.server.superlink.fleet.vce.vce_api",
    ):
        assert """str(type(ex)) + ":<'" + str(ex) + "'>\"""" in source(module)


def test_rays_wrapping_of_an_exception_is_known() -> None:
    wrapped = ClientAppException("why")
    assert flower_compat.error_reason(flower_compat.exception_reply(wrapped, request())) == "why"


def test_the_error_code_of_a_lost_node_is_known() -> None:
    assert "ErrorCode.NODE_UNAVAILABLE" in source("flwr.server.superlink.linkstate.utils")


# ---- Commands and logs of a simulation ----


@pytest.mark.parametrize(
    ("text", "module"),
    [
        (flower_commands.EXCEPTION_PREFIXES[0], "flwr.simulation.app"),
        (flower_commands.EXCEPTION_PREFIXES[1], "flwr.superlink.runtime.run_serverapp"),
        (flower_commands.GENERIC_FAILURE, "flwr.simulation.run_simulation"),
        (flower_commands.PROCESS_LOST, "flwr.supercore.corestate.sql_corestate"),
        (flower_commands.RUN_STARTED, "flwr.cli.run.run"),
        ('"status-details"', "flwr.cli.ls"),
        ('{"success": True, "runs": ', "flwr.cli.ls"),
        ('"error-message"', "flwr.supercore.logger"),
        (flower_commands.HOME, "flwr.common.constant"),
        (flower_commands.POLL_INTERVAL, "flwr.supercore.superexec.run_superexec"),
        ("FLWR_TELEMETRY_ENABLED", "flwr.supercore.telemetry"),
        ("FLWR_DISABLE_UPDATE_CHECK", "flwr.supercore.update_check"),
    ],
)
def test_a_text_of_flower_is_known(text: str, module: str) -> None:
    assert text in source(module)


@pytest.mark.parametrize(
    "module", ["flwr.simulation.run_simulation", "flwr.server.superlink.fleet.vce.vce_api"]
)
def test_the_log_of_an_exception_is_known(module: str) -> None:
    assert flower_commands.LOGGED_EXCEPTION.search(source(module))


def test_the_command_runs_in_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    flwr = flower_commands.load_flwr()
    flwr("--version")
    assert "Flower version" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        flwr("no-such-command")


# ---- The SuperLink and SuperNodes of a deployment ----


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (NodeInfo, "node_id public_key status name heartbeat_interval online_until "),
        (NodeInfo, "last_deactivated_at"),
        (RegisterNodeRequest, "public_key name"),
        (UnregisterNodeRequest, "node_id"),
        (StartRunRequest, "fab override_config"),
        (StartRunResponse, "run_id note"),
        (ListNodesRequest, ""),
        (ListRunsRequest, "run_id"),
        (Run, "status"),
        (RunStatus, "status sub_status details"),
        (ActivateNodeResponse, "node_id"),
        (DeactivateNodeRequest, "node_id"),
    ],
)
def test_a_message_of_the_apis_has_known_fields(message: type[Proto], fields: str) -> None:
    assert set(fields.split()) <= set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    "method", ["ListNodes", "RegisterNode", "UnregisterNode", "StartRun", "ListRuns", "close"]
)
def test_the_control_api_has_a_method(method: str) -> None:
    assert callable(getattr(ControlHttpClient, method))


def test_a_client_is_made_from_an_address() -> None:
    parameters = inspect.signature(ControlHttpClient.from_server_address).parameters
    assert [*parameters][:4] == ["server_address", "insecure", "root_certificates", "interceptors"]


@pytest.mark.parametrize("name", ["PUBLIC_KEY_ALREADY_IN_USE", "FLEET_NODE_ACTIVATION_FAILED"])
def test_a_refusal_has_a_code(name: str) -> None:
    code = getattr(ApiErrorCode, name)
    assert flower_compat.error_code(refusal(code)) == code


def refusal(code: int) -> httpx.HTTPStatusError:
    response = httpx.Response(400, json=FlowerError(code, "why").to_json("why"))
    return httpx.HTTPStatusError("", request=httpx.Request("POST", "/"), response=response)


def test_a_node_counts_as_online_for_so_many_heartbeats() -> None:
    for module in ("sql_linkstate", "in_memory_linkstate"):
        text = source(f"flwr.server.superlink.linkstate.{module}")
        assert "HEARTBEAT_PATIENCE * heartbeat_interval" in text


def test_the_superlink_has_room_for_a_middleware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "get_middleware", tuple)
    monkeypatch.setattr("flwr.superlink.cli.flower_superlink", lambda: None)
    ours = Middleware(lambda app: app)
    flower_compat.run_superlink(ours)
    assert import_module("flwr.superlink.main")._get_middleware()[0] is ours


def test_further_ports_are_opened_by_known_variables_alone() -> None:
    module = source("flwr.superlink.cli.flower_superlink")
    assert set(re.findall(r"os\.(?:getenv|environ\.get)\((\w+)", module)) >= {
        "FLWR_INTERNAL_GRPC_CONTROL_API",
        "FLWR_INTERNAL_GRPC_FLEET_API",
    }


def test_the_fleet_api_and_no_other_is_below_its_path() -> None:
    fleet = re.findall(r'path="(.*?)"', source("flwr.supernode.fleet_http_client"))
    others = re.findall(r'path="(.*?)"', source("flwr.supercore.control.control_http_client"))
    assert fleet
    assert others
    assert all(path.startswith(flower_compat.FLEET_PATH) for path in fleet)
    assert not any(path.startswith(flower_compat.FLEET_PATH) for path in others)


@pytest.mark.parametrize(
    ("script", "command"),
    [
        (scripts.superlink_script(["a"], 1), "superlink"),
        (scripts.supernode_script("a:1", "A"), "supernode"),
    ],
)
def test_a_command_of_flower_has_the_options_of_its_start_script(
    script: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
    monkeypatch.setattr(sys, "argv", ["flower", "--help"])
    cli = import_module(f"flwr.{command}.cli")
    with pytest.raises(SystemExit):
        getattr(cli, f"flower_{command}")()
    options = set(re.findall(r"^ +(--[a-z-]+)", script, re.MULTILINE))
    assert options
    assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    known = {flower_commands.HOME, flower_commands.POLL_INTERVAL, *flower_commands.ENVIRONMENT}
    assert set(re.findall(r"FLWR_\w+", script)) == known


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
    monkeypatch.setattr(loop, "_push_messages", loop._push_messages)
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


def test_a_node_installs_no_dependencies_of_an_app() -> None:
    assert constant.RUNTIME_DEPENDENCY_INSTALL is False
    assert "add_args_runtime_dependency_install(parser)" in source(
        "flwr.supernode.cli.flower_supernode"
    )
