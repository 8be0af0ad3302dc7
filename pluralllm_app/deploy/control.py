"""What the SuperLink knows of a deployment's nodes, over Flower's Control API.

`flwr supernode list` prints neither a node's key nor its name, so only this API, which the command
uses as well, tells which group a node is of. The key tells: it is what the SuperLink checks.
"""

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from pluralllm_app.deploy.layout import read_connection, read_groups
from pluralllm_app.errors import UserError
from pluralllm_app.settings import Scalar


@dataclass(frozen=True)
class Node:
    """A node's registration at the SuperLink."""

    id: int
    status: str
    """registered (never connected), online or offline."""
    name: str
    """What it was registered as: the slug of its group, or what `flwr supernode register` gave."""
    time: datetime | None
    """Online: when it last reported to the SuperLink. Offline: since when it counts as that, from
    its good-bye or a minute after it last reported. None if it never connected."""


class Control:
    """The Control API of a deployment's SuperLink; see `connect`."""

    def __init__(self, path: Path, client: ControlHttpClient) -> None:
        self._path = path
        self._client = client

    def by_group(self, registered: Mapping[bytes, Node]) -> dict[str, Node]:
        """Of the nodes of `nodes_by_key`, those that are of a group, by its slug.

        Its key tells; where that cannot be read, the slug it was registered under.
        """
        named = {node.name: node for node in registered.values()}
        found = {}
        for slug in read_groups(self._path):
            try:
                node = registered.get(self.key(slug))
            except UserError:
                node = named.get(slug)
            if node:
                found[slug] = node
        return found

    def nodes_by_key(self) -> dict[bytes, Node]:
        """All registered nodes by their public keys."""
        listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {info.public_key: _node(info) for info in listed if info.status != "unregistered"}

    def register(self, slug: str) -> int:
        """Register the key of a group's node under its slug; returns the node's id.

        Raises:
            UserError: the key cannot be read, or was registered and unregistered before.
        """
        request = RegisterNodeRequest(public_key=self.key(slug), name=slug)
        try:
            node_id: int = self._client.RegisterNode(request).node_id
        except httpx.HTTPStatusError as error:
            known = FlowerError.from_json(error.response.text)
            if not known or known.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise
            raise UserError(
                "the node's key was registered once and unregistered, and the SuperLink takes no "
                "key twice: for a new key, take the group out with `pluralllm deploy remove`, and "
                "in with `pluralllm deploy add`"
            ) from error
        return node_id

    def unregister(self, node: Node) -> None:
        """Unregister a node: the SuperLink refuses its key from now on."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))

    def start_run(self, files: Mapping[str, Path], run_config: Mapping[str, Scalar]) -> int:
        """Submit a run of a Flower app, given as its files by name; returns the run's id.

        Raises:
            UserError: the files are no app that Flower takes, or the SuperLink refuses it.
        """
        try:
            content, _ = build_fab_from_files(files)
        except ValueError as error:
            raise UserError(f"Flower does not take the app: {error}") from error
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(run_config))
        )
        response = self._client.StartRun(request)
        if not response.HasField("run_id"):
            raise UserError(
                f"the SuperLink did not start the run: {response.note or 'see what it prints'}"
            )
        run_id: int = response.run_id
        return run_id

    def outcome(self, run_id: int) -> tuple[str | None, str]:
        """How a run ended (completed, failed, stopped; None before that), and of what it failed."""
        run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        error = run.status.details.removeprefix("ServerApp failed with exception: ")
        return run.status.sub_status or None, error

    def key(self, slug: str) -> bytes:
        """The public key of a group's node, as the SuperLink knows it."""
        file = self._path / "server" / "nodes" / f"{slug}.pub"
        try:
            key = load_ssh_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise UserError(
                f"cannot read the public key {file}: {error}; copy it from node.key.pub of the node"
            ) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise UserError(f"{file} is no ECDSA key: make one with ssh-keygen -t ecdsa -b 384")
        return public_key_to_bytes(key)


@contextmanager
def connect(path: Path) -> Iterator[Control]:
    """Connect to the SuperLink of the deployment at `path`.

    Raises:
        UserError: no connection is configured, or the SuperLink does not answer, has a certificate
            of another authority, or refuses.
    """
    address, root = read_connection(path)
    try:
        client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=root.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="pluralllm")],
        )
    except (OSError, ValueError, ssl.SSLError) as error:
        raise UserError(f"cannot read the root certificate {root}: {error}") from error
    try:
        yield Control(path, client)
    except httpx.HTTPStatusError as error:
        raise UserError(_refusal(address, error.response)) from error
    except httpx.HTTPError as error:
        raise UserError(_failure(address, root, error)) from error
    finally:
        client.close()


def _refusal(address: str, response: httpx.Response) -> str:
    if response.status_code == httpx.codes.FORBIDDEN:
        return (
            f"the SuperLink at {address} answers such requests on its own machine alone: run the "
            "command there, or through an SSH tunnel to it"
        )
    return f"the SuperLink at {address} refuses: {response.text}"


def _failure(address: str, root: Path, error: httpx.HTTPError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"the SuperLink at {address} has a certificate that {root} does not vouch for "
            f"({error}): it was renewed and the SuperLink not started again since, has expired or "
            "does not name this address, or another federation's server runs there"
        )
    return (
        f"no SuperLink answers at {address} ({error}): start it with server/start.sh and look at "
        "what it prints"
    )


def _node(info: NodeInfo) -> Node:
    time = None
    if info.status == "online":
        patience = HEARTBEAT_PATIENCE * info.heartbeat_interval
        time = datetime.fromtimestamp(info.online_until - patience, UTC)
    elif info.status == "offline":
        time = datetime.fromisoformat(info.last_deactivated_at)
    return Node(info.node_id, info.status, info.name, time)
