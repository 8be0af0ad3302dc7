"""What this app uses of Flower besides its public API.

`flower_commands`, `flower_fence`, `flower_node` and `flower_store` have the rest.

Public are `flwr.app`, `flwr.clientapp` and `flwr.serverapp`, which any module from the federation
on may import. What is here may change with any release of Flower, and then
`tests/federation/test_flower_compat.py` names what changed. It comes in two parts: what the apps
use in a process, and what a deployment asks of the SuperLink. A client's process starts for every
message, so the functions that it does not need import what they need of Flower when called.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from pluralllm_app.core.hidden_text import printable
from pluralllm_app.errors import UserError
from pluralllm_app.federation.bounds import MOST_TEXT
from pluralllm_app.federation.flower_commands import PROCESS_LOST, without_prefix

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid
    from starlette.middleware import Middleware

# ---- In the process of an app ----

LOGGER = logging.getLogger("flwr")
"""Flower's logger: what a ServerApp writes to it is shown by `flwr run --stream`."""


MALFORMED = (DecodeError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What Flower raises where it makes a message of the objects of a node that sent nonsense."""


def log_errors_plainly() -> None:
    """Let Flower log a `UserError` that an app raises as its message alone, without a traceback.

    What it logs shows hidden characters as escapes, those of tracebacks too.
    """
    LOGGER.addFilter(_plain)


def _plain(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
    record.msg, record.args = printable(record.getMessage()), ()
    if record.exc_info:
        # The formatter takes what is here already.
        record.exc_text = printable(logging.Formatter().formatException(record.exc_info))
    return True


def is_simulated(grid: "Grid") -> bool:
    """Whether the nodes of a ServerApp's grid are those of Flower's simulation."""
    from flwr.superlink.grid.inmemory_grid import InMemoryGrid

    return isinstance(grid, InMemoryGrid)


def node_keys(grid: "Grid") -> dict[int, bytes]:
    """The public keys of the nodes that are connected to a deployment's SuperLink, by their ids.

    The SuperLink says so: a node's key is what it was registered with, and no node can be another
    without signing as it.
    """
    from flwr.superlink.grid.http_grid import HttpGrid

    assert isinstance(grid, HttpGrid), "only a deployment has keys"
    return {node.node_id: node.public_key for node in grid.get_nodes()}


def identify_process() -> None:
    """Set what Flower sets in the process of a ServerApp before messages can be made there."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def give_id(message: Message) -> str:
    """Give a message an id, as a grid does when it sends the message."""
    message.metadata.__dict__["_message_id"] = str(uuid4())
    return message.metadata.message_id


def exception_reply(error: Exception, message: Message) -> Message:
    """The reply that Flower makes where a client app raises an error."""
    reason = f"<class 'flwr.clientapp.client_app.ClientAppException'>:<'{error}'>"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def node_was_lost(reply: Message) -> bool:
    """Whether the SuperLink made this reply, because the node was lost before it replied."""
    return reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE


def error_reason(reply: Message) -> str:
    """What went wrong at a node, in one short line, without the wrapping that Flower and Ray add.

    The first line, of at most `MOST_TEXT` characters, of the message of the exception that the
    client app raised, or of what Flower says of a lost node.
    """
    reason = reply.error.reason or f"error {reply.error.code}"
    wrapped = re.fullmatch(r"<class '[\w.]+'>:<'(.*)'>", reason, re.DOTALL)
    text = wrapped[1] if wrapped else reason
    message = text.rpartition("Exception ClientAppException occurred. Message: ")[2]
    lines = message.strip().splitlines()
    return lines[0][:MOST_TEXT] if lines else f"error {reply.error.code}"


# ---- The SuperLink of a deployment ----

FLEET_PATH = "/v1/fleet/"
"""Below it are all requests of SuperNodes to the SuperLink."""


@dataclass(frozen=True)
class Node:
    """A node's registration at the SuperLink."""

    id: int
    key: bytes
    """Its public key, as `key_bytes` gives it."""
    status: str
    """`registered` (never connected), `online`, `offline` or `unregistered`."""
    name: str
    """What it was registered as: the slug of its group, or what `flwr supernode register` gave."""
    time: datetime | None
    """Online: when it last reported to the SuperLink. Offline: since when it counts as that, from
    its good-bye or a minute after it last reported. None if it never connected."""

    @classmethod
    def of(cls, info: "NodeInfo") -> "Node":
        """Read what the Control API says of a node."""
        from flwr.common.constant import HEARTBEAT_PATIENCE

        time = None
        if info.status == "online":
            patience = HEARTBEAT_PATIENCE * info.heartbeat_interval
            time = datetime.fromtimestamp(info.online_until - patience, UTC)
        elif info.status == "offline":
            time = datetime.fromisoformat(info.last_deactivated_at)
        return cls(info.node_id, info.public_key, info.status, info.name, time)


class KeyWasUsedError(Exception):
    """The SuperLink refuses to register a key, because it has had a node with it."""


class ControlApi:
    """The SuperLink's API for registering nodes and submitting runs, as Flower's commands use it.

    Every method may raise an `httpx.HTTPError`.

    Args:
        address: host:port.
        root_certificate: the authority of the SuperLink's certificate, in PEM.

    Raises:
        ValueError, ssl.SSLError: that is no certificate.
    """

    def __init__(self, address: str, root_certificate: bytes) -> None:
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=root_certificate,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="pluralllm")],
        )

    def nodes(self) -> list[Node]:
        """All registrations, also those that were unregistered."""
        from flwr.proto.control_pb2 import ListNodesRequest

        return [Node.of(info) for info in self._client.ListNodes(ListNodesRequest()).nodes_info]

    def register(self, key: bytes, name: str) -> int:
        """Register a node's public key under a name; returns the node's id.

        Raises:
            KeyWasUsedError: the key is or was registered.
        """
        from flwr.proto.control_pb2 import RegisterNodeRequest
        from flwr.supercore.error import ApiErrorCode
        from httpx import HTTPStatusError

        try:
            request = RegisterNodeRequest(public_key=key, name=name)
            return int(self._client.RegisterNode(request).node_id)
        except HTTPStatusError as error:
            if error_code(error) == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise KeyWasUsedError from error
            raise

    def unregister(self, node_id: int) -> None:
        """Unregister a node: the SuperLink refuses its key from now on."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start_run(
        self, files: Mapping[str, Path], run_config: Mapping[str, bool | int | float | str]
    ) -> int:
        """Submit a run of a Flower app, given as its files by name; returns the run's id.

        Raises:
            UserError: the files are no app that Flower takes, or the SuperLink refuses it.
        """
        from flwr.cli.build import build_fab_from_files
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        try:
            content, _ = build_fab_from_files(files)
        except ValueError as error:
            raise UserError(f"Flower does not take the app: {error}") from error
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        config = user_config_to_proto(dict(run_config))
        response = self._client.StartRun(StartRunRequest(fab=fab, override_config=config))
        if not response.HasField("run_id"):
            raise UserError(
                f"the SuperLink did not start the run: {response.note or 'see what it prints'}"
            )
        return int(response.run_id)

    def outcome(self, run_id: int) -> tuple[str | None, str]:
        """How a run ended (completed, failed, stopped; None before that), and why it failed."""
        from flwr.proto.control_pb2 import ListRunsRequest

        run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        error = without_prefix(run.status.details)
        if error.startswith(PROCESS_LOST):
            error = (
                "the server's process of the run was killed, or its machine went down. The kernel "
                "kills processes where memory is short, and its log says so (`journalctl -k`)"
            )
        return run.status.sub_status or None, error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def key_bytes(key: "EllipticCurvePublicKey") -> bytes:
    """A node's public key as the SuperLink knows it."""
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    return public_key_to_bytes(key)


def piece_size() -> int:
    """How many bytes of an array go in one body: Flower cuts longer ones into pieces."""
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    return FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE


def run_superlink(middleware: "Sequence[Middleware]", serve: Callable[..., None]) -> None:
    """Run flower-superlink with the arguments of this process; returns when it ends.

    Nodes may push their own replies alone, and reserve no objects of others.

    Args:
        middleware: what every request passes first, in this order.
        serve: takes the place of `uvicorn.run`.
    """
    from flwr.common.constant import FLWR_INTERNAL_GRPC_CONTROL_API, FLWR_INTERNAL_GRPC_FLEET_API
    from flwr.superlink import cli, extensions

    from pluralllm_app.federation.flower_fence import fence_fleet
    from pluralllm_app.federation.flower_store import guard_objects

    fence_fleet()
    guard_objects()
    log_errors_plainly()
    # With these, Flower would serve the APIs on further ports, which have no middleware.
    for name in (FLWR_INTERNAL_GRPC_CONTROL_API, FLWR_INTERNAL_GRPC_FLEET_API):
        os.environ.pop(name, None)
    extensions.get_middleware = lambda: tuple(middleware)
    module: Any = import_module("flwr.superlink.cli.flower_superlink")  # `cli` has the function
    module.uvicorn = SimpleNamespace(run=serve)
    cli.flower_superlink()


def error_code(error: Any) -> int | None:
    """The code that an API of the SuperLink gives for refusing a request."""
    from flwr.supercore.error import FlowerError

    known = FlowerError.from_json(error.response.text)
    return known.code if known else None
