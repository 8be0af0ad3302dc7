"""The contract with Flower: each test names one thing that this app relies on.

Where one fails after a new release of Flower, mend `federation/flower_compat.py`,
or another `flower_*.py` beside it, and nothing else.
"""

import inspect
import re
import sys
from importlib import import_module
from types import ModuleType

import httpx
import numpy as np
import pytest
import uvicorn
from flwr.app import Array, Message, MessageType, RecordDict
from flwr.clientapp.client_app import ClientAppException
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
    ActivateNodeResponse,
    DeactivateNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import extensions
from google.protobuf.message import Message as Proto
from starlette.middleware import Middleware

from pluralllm_app.deploy import scripts
from pluralllm_app.federation import flower_commands, flower_compat

POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"


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
        (flower_commands.HOME, "flwr.common.constant"),
        (POLL_INTERVAL, "flwr.supercore.superexec.run_superexec"),
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


def test_a_simulation_is_run_as_flowers_own_process_runs_it() -> None:
    called = source("flwr.simulation.app").partition("_run_simulation(\n")[2]
    used = source("pluralllm_app.federation.flower_simulation").partition("_run_simulation(\n")[2]
    given = set(re.findall(r"^        (\w+)=", used, re.MULTILINE))
    assert "server_app_context" in given
    assert given <= set(re.findall(r"^            (\w+)=", called, re.MULTILINE))


def test_a_simulation_takes_a_ray_that_has_started() -> None:
    backend = source("flwr.server.superlink.fleet.vce.backend.raybackend")
    assert "if not ray.is_initialized():" in backend


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


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of Flower's command, which here does nothing, and which ours changes."""
    module = import_module("flwr.superlink.cli.flower_superlink")
    monkeypatch.setattr(module, "uvicorn", None)
    monkeypatch.setattr(extensions, "get_middleware", tuple)
    monkeypatch.setattr("flwr.superlink.cli.flower_superlink", lambda: None)
    return module


@pytest.mark.usefixtures("superlink")
def test_the_superlink_has_room_for_middleware() -> None:
    ours = [Middleware(lambda app: app), Middleware(lambda app: app)]
    flower_compat.run_superlink(ours, print)
    assert import_module("flwr.superlink.main")._get_middleware()[:2] == ours


def test_the_superlink_is_served_by_ours(superlink: ModuleType) -> None:
    flower_compat.run_superlink([], print)
    assert superlink.uvicorn.run is print
    text = source("flwr.superlink.cli.flower_superlink")
    assert re.findall(r"uvicorn\.\w+", text) == ["uvicorn.run"]
    call = text.split("uvicorn.run(")[1].split("\n    )\n")[0]
    given = set(re.findall(r"^ {8}(\w+)=", call, re.MULTILINE))
    assert given >= {"app", "host", "port", "ssl_certfile", "ssl_keyfile"}
    assert given <= {"host", "port", *inspect.signature(uvicorn.Config).parameters}
    assert not given & {"loop", "http", "ws"}


def test_arrays_are_cut_into_pieces() -> None:
    size = flower_compat.piece_size()
    pieces = Array(np.zeros(size // 4 + 1, np.float32)).slice_array()
    lengths = [len(piece.deflate()) for _, piece in pieces]
    assert len(lengths) == 2
    assert size < max(lengths) < size + 1000


def test_further_ports_are_opened_by_known_variables_alone() -> None:
    module = source("flwr.superlink.cli.flower_superlink")
    assert set(re.findall(r"os\.(?:getenv|environ\.get)\((\w+)", module)) >= {
        "FLWR_INTERNAL_GRPC_CONTROL_API",
        "FLWR_INTERNAL_GRPC_FLEET_API",
    }


def test_the_guarded_functions_are_those_that_the_superlink_calls() -> None:
    """`tests/federation/test_flower_store.py` uses them on Flower's real store."""
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supercore.object_store.sql_object_store import SqlObjectStore

    for function, names in (
        (SqlObjectStore.preregister, ["self", "run_id", "object_tree"]),
        (SqlObjectStore.put, ["self", "object_id", "object_content"]),
        (SqlObjectStore._mutation_session, ["self"]),
        (SqlLinkState.session, ["self"]),
    ):
        assert [*inspect.signature(function).parameters] == names
    assert "SqlObjectStore(" in inspect.getsource(ObjectStoreFactory)
    assert "= runtime_handlers\n" in source("flwr.superlink.main")
    router = source("flwr.supercore.routers.runtime.router")
    assert "handlers.pull_messages(request, state, task)" in router


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
    known = {flower_commands.HOME, POLL_INTERVAL, *flower_commands.ENVIRONMENT}
    assert set(re.findall(r"FLWR_\w+", script)) == known
