"""Flower's SuperNode, as a node of a deployment runs it; see `flower_compat`.

It asks to be let in as often as needed, and it runs its own code: what Flower would fetch from the
SuperLink and run is compared with the node's own app, and replaced by it. A message of a run with
another app is answered by an error that says so.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralllm_app.core.code import code_hash
from pluralllm_app.federation.flower_commands import HOME
from pluralllm_app.federation.flower_compat import LOGGER, error_code, log_errors_plainly
from pluralllm_app.federation.own_code import PYPROJECT, refusal

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.supercore.fab import Fab
    from flwr.supercore.run import Run

Enter = Callable[[Callable[[], Any], Callable[[Any], None]], Any]
OwnFiles = Callable[[], Mapping[str, bytes]]


class NotLetInError(Exception):
    """The SuperLink does not let a node in."""


class RefusedRunError(Exception):
    """The node takes no part in a run."""


def run_supernode(enter: Enter, own_files: OwnFiles) -> None:
    """Run flower-supernode with the arguments of this process; returns when it ends.

    Args:
        enter: called as `enter(ask, leave)` when the node is to be let in. `ask()` asks the
            SuperLink and returns its answer, or raises NotLetInError; `enter` returns that answer.
            `leave(answer)` says good-bye.
        own_files: gives the files of the node's own app by name, once for each run.
    """
    from flwr.supernode.cli import flower_supernode

    print(f"This node runs its own code, {OwnApp.of(own_files()).hash}, and no other.", flush=True)
    _enter_by(enter)
    _run_own_code(own_files)
    _forget_apps()
    log_errors_plainly()
    flower_supernode()


def _enter_by(enter: Enter) -> None:
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        ActivateNodeResponse,
        DeactivateNodeRequest,
    )
    from flwr.supercore.error import ApiErrorCode
    from flwr.supernode import fleet_http_connection
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from httpx import HTTPStatusError

    class Client(FleetHttpClient):
        def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:
            activate = super().ActivateNode

            def ask() -> ActivateNodeResponse:
                try:
                    return activate(request)
                except HTTPStatusError as error:
                    if error_code(error) == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                        raise NotLetInError from error
                    raise

            def leave(answer: ActivateNodeResponse) -> None:
                with suppress(HTTPStatusError):  # it was removed meanwhile, as the next ask tells
                    self.DeactivateNode(DeactivateNodeRequest(node_id=answer.node_id))

            response: ActivateNodeResponse = enter(ask, leave)
            return response

    fleet_http_connection.FleetHttpClient = Client  # type: ignore[attr-defined]


def _forget_apps() -> None:
    """Remove the copies that Flower runs apps from: of this app it makes a new one.

    It takes a copy that is there for whole and unchanged, whatever put it there.
    """
    from flwr.common.constant import APP_DIR

    if (home := os.environ.get(HOME)) and (copies := Path(home) / APP_DIR).exists():
        shutil.rmtree(copies)


@dataclass(frozen=True)
class OwnApp:
    """The node's own app, as a bundle of Flower."""

    bundle: "Fab"
    id: str
    version: str
    hash: str
    """Of its code."""

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> "OwnApp":
        """Bundle these files."""
        from flwr.cli.build import build_fab_from_files
        from flwr.common.config import get_fab_config, get_metadata_from_config
        from flwr.supercore.fab import Fab

        content, _ = build_fab_from_files(files)
        code = {name: file for name, file in files.items() if name != PYPROJECT}
        named = get_metadata_from_config(get_fab_config(content))
        return cls(Fab(hashlib.sha256(content).hexdigest(), content, {}), *named, code_hash(code))


def _run_own_code(own_files: OwnFiles) -> None:
    """Let Flower's loop take the node's own app in place of the one that it fetches."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode
    from flwr.supernode import start_client_internal as loop

    pull = loop._pull_and_store_message

    @wraps(pull)
    def pull_own(**arguments: Any) -> int | None:
        taking = _Taking(
            own_files, arguments["receive"], arguments["get_run"], arguments["get_fab"]
        )
        arguments |= {
            "receive": taking.receive,
            "get_run": taking.get_run,
            "get_fab": taking.get_fab,
        }
        try:
            return pull(**arguments)
        except RefusedRunError as refused:
            message = taking.message
            LOGGER.error("Refused run %s: %s", message.metadata.run_id, refused)
            reply = Message(Error(ErrorCode.INVALID_FAB, str(refused)), reply_to=message)
            loop._insert_message(reply, arguments["state"], arguments["object_store"])
            return message.metadata.run_id

    loop._pull_and_store_message = pull_own  # type: ignore[assignment]


class _Taking:
    """Takes one message from the SuperLink, and with the first of a run its app."""

    message: "Message"

    def __init__(
        self,
        own_files: OwnFiles,
        receive: Callable[[], Any],
        get_run: Callable[[int], "Run"],
        get_fab: Callable[[str, int], "Fab"],
    ) -> None:
        self._own_files = own_files
        self._receive = receive
        self._get_run = get_run
        self._get_fab = get_fab
        self._own: OwnApp

    def receive(self) -> Any:
        """The next message with the tree of its objects; None where there is none."""
        found = self._receive()
        if found is not None:
            self.message = found[0]
        return found

    def get_run(self, run_id: int) -> "Run":
        """What the SuperLink says of a run, but with the node's own app.

        Raises:
            RefusedRunError: the run has another app, or settings that this app does not have.
        """
        from flwr.common.config import get_fused_config_from_fab

        run = self._get_run(run_id)
        try:
            own = self._own = OwnApp.of(self._own_files())
        except (OSError, ValueError) as error:  # its owner may just be installing another
            raise RefusedRunError(f"the node cannot read its own code: {error}") from error
        sent = self._get_fab(run.fab_hash, run_id)
        if why := refusal(sent.content, own.bundle.content, own.hash):
            raise RefusedRunError(why)
        # Of a run's kinds, the node knows the one that starts a ClientApp.
        run = replace(
            run,
            fab_id=own.id,
            fab_version=own.version,
            fab_hash=own.bundle.hash_str,
            primary_task_type="",
        )
        try:
            get_fused_config_from_fab(own.bundle.content, run)
        except ValueError as error:
            raise RefusedRunError(
                f"the run's settings are not those of this app: {error}"
            ) from None
        return run

    def get_fab(self, fab_hash: str, run_id: int) -> "Fab":
        """The node's own app."""
        return self._own.bundle
