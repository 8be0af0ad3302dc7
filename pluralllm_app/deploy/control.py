"""What the SuperLink knows of a deployment's nodes, over Flower's Control API.

`flwr supernode list` prints neither a node's key nor its name, so only this API, which the command
uses as well, tells which group a node is of. The key tells: it is what the SuperLink checks.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx

from pluralllm_app.core.environment import proxy_to, sparing_this_machine
from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.deploy.layout import read_connection
from pluralllm_app.engines.base import Ended, Outcome
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_compat import ControlApi, KeyWasUsedError, Node
from pluralllm_app.federation.registration import read_public_key
from pluralllm_app.settings import Scalar


class Control:
    """The Control API of a deployment's SuperLink; see `connect`."""

    def __init__(self, path: Path, api: ControlApi) -> None:
        self._path = path
        self._api = api

    def by_group(self, registered: Mapping[bytes, Node]) -> dict[str, Node]:
        """The nodes of the groups, among those of `nodes_by_key`, by the group's slug.

        Its key tells whose it is; where that cannot be read, the slug that it is registered under.
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
        return {node.key: node for node in self._api.nodes() if node.status != "unregistered"}

    def register(self, slug: str) -> int:
        """Register the key of a group's node under its slug; returns the node's id.

        Raises:
            UserError: the key cannot be read, or was registered and unregistered before.
        """
        try:
            return self._api.register(self.key(slug), slug)
        except KeyWasUsedError as error:
            raise UserError(
                "the node's key was registered and then unregistered, and the SuperLink takes no "
                "key twice. For a new key, take the group out with `pluralllm deploy remove`, and "
                "let its node `pluralllm deploy join` again"
            ) from error

    def unregister(self, node: Node) -> None:
        """Unregister a node: the SuperLink refuses its key from now on."""
        self._api.unregister(node.id)

    def start_run(self, files: Mapping[str, Path], run_config: Mapping[str, Scalar]) -> int:
        """Submit a run of a Flower app, given as its files by name; returns the run's id.

        Raises:
            UserError: the files are no app that Flower takes, or the SuperLink refuses it.
        """
        return self._api.start_run(files, run_config)

    def outcome(self, run_id: int) -> Outcome | None:
        """How a run ended; None before that."""
        status, error = self._api.outcome(run_id)
        return Outcome(cast(Ended, status), error) if status else None

    def key(self, slug: str) -> bytes:
        """The public key of a group's node, as the SuperLink knows it."""
        return read_public_key(self._path / "server" / "nodes" / f"{slug}.pub")


class NotRunningError(UserError):
    """Nothing answers where the SuperLink should be."""


@contextmanager
def connect(path: Path) -> Iterator[Control]:
    """Connect to the SuperLink of the deployment at `path`.

    Raises:
        UserError: no connection is configured, or the SuperLink does not answer, has a certificate
            of another authority, or refuses.
    """
    address, root = read_connection(path)
    try:
        with sparing_this_machine():
            api = ControlApi(address, root.read_bytes())
    except (OSError, ValueError, ssl.SSLError) as error:
        raise UserError(
            f"cannot read the root certificate {root}, which {path}/flwr-home/config.toml names: "
            f"{error}. Where the directory was moved, move it back, or write its new path there"
        ) from error
    try:
        yield Control(path, api)
    except httpx.HTTPStatusError as error:
        raise UserError(_refusal(address, error.response)) from error
    except httpx.HTTPError as error:
        raise _failure(address, root, error) from error
    finally:
        api.close()


def _refusal(address: str, response: httpx.Response) -> str:
    if response.status_code == httpx.codes.FORBIDDEN:
        return (
            f"the SuperLink at {address} answers such requests only on its own machine: run the "
            "command there, or through an SSH tunnel to it"
        )
    return f"the SuperLink at {address} refuses: {response.text}"


def _failure(address: str, root: Path, error: httpx.HTTPError) -> UserError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UserError(
            f"the SuperLink at {address} has a certificate that {root} does not vouch for "
            f"({error}). Either it has expired or does not name this address, or it was renewed "
            "and the SuperLink not started again since, or another federation's server runs there"
        )
    proxy = proxy_to(f"https://{address}", os.environ)
    way = f" through the proxy {proxy}" if proxy else ""
    return NotRunningError(
        f"no SuperLink answers at {address}{way} ({error}): start it with server/start.sh and look "
        "at what it prints"
    )
