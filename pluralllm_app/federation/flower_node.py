"""Flower's SuperNode, as a node of a deployment runs it; see `flower_compat`.

It asks to be let in as often as needed, and it runs its own code: what Flower would fetch from the
SuperLink and run is compared with the node's own app, and replaced by it. A message of a run with
another app is answered by an error that says so.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from pluralllm_app.errors import REFUSED
from pluralllm_app.federation.audit_log import Answered, AuditLog
from pluralllm_app.federation.flower_apps import OwnApp
from pluralllm_app.federation.flower_compat import (
    LOGGER,
    error_code,
    error_reason,
    log_errors_plainly,
)
from pluralllm_app.federation.flower_executor import fork_apps
from pluralllm_app.federation.flower_pauses import look_sooner
from pluralllm_app.federation.own_code import refusal

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.supercore.fab import Fab
    from flwr.supercore.run import Run

_POLL_SECONDS = 0.02

Enter = Callable[[Callable[[], Any], Callable[[Any], None]], Any]
OwnFiles = Callable[[], Mapping[str, bytes]]


class NotLetInError(Exception):
    """The SuperLink does not let a node in."""


class RefusedRunError(Exception):
    """The node takes no part in a run."""


def run_supernode(enter: Enter, own_files: OwnFiles, audit: AuditLog) -> None:
    """Run flower-supernode with the arguments of this process; returns when it ends.

    Args:
        enter: called as `enter(ask, leave)` when the node is to be let in. `ask()` asks the
            SuperLink and returns its answer, or raises NotLetInError; `enter` returns that answer.
            `leave(answer)` says good-bye.
        own_files: gives the files of the node's own app by name, once for each run.
        audit: told of every message before its answer leaves.
    """
    from flwr.supernode.cli import flower_supernode

    own = OwnApp.of(own_files())
    print(f"This node runs its own code, {own.hash}, and no other.", flush=True)
    _enter_by(enter)
    log = _Answers(audit)
    _run_own_code(own_files, log)
    _note_answers(log)
    own.install_alone()
    fork_apps()
    look_sooner()
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
    from httpx import HTTPStatusError, TransportError

    class Client(FleetHttpClient):
        def _unary_unary(self, **call: Any) -> Any:
            try:
                return super()._unary_unary(**call)
            except TransportError as error:
                if "EOF occurred" not in str(error) and "timed out" not in str(error):
                    raise
                # Flower's node ends for whatever names TLS, also a connection cut while TLS begins.
                raise type(error)("the connection was cut off") from error

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


def _run_own_code(own_files: OwnFiles, log: "_Answers") -> None:
    """Let Flower's loop take the node's own app in place of the one that it fetches."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode
    from flwr.supernode import start_client_internal as loop

    pull = loop._pull_and_store_message

    @wraps(pull)
    def pull_own(**arguments: Any) -> int | None:
        taking = _Taking(own_files, log, **{name: arguments[name] for name in _Taking.REPLACED})
        arguments |= {name: getattr(taking, name) for name in _Taking.REPLACED}
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

    REPLACED = ("receive", "get_run", "get_fab", "pull_object")
    message: "Message"

    def __init__(
        self,
        own_files: OwnFiles,
        log: "_Answers",
        receive: Callable[[], Any],
        get_run: Callable[[int], "Run"],
        get_fab: Callable[[str, int], "Fab"],
        pull_object: Callable[[int, str], bytes],
    ) -> None:
        self._own_files = own_files
        self._log = log
        self._pull_object = pull_object
        self._receive = receive
        self._get_run = get_run
        self._get_fab = get_fab
        self._own: OwnApp

    def receive(self) -> Any:
        """The next message with the tree of its objects; None where there is none."""
        found = self._receive()
        if found is not None:
            self.message = found[0]
            self._log.begin(self.message)
        return found

    def pull_object(self, run_id: int, object_id: str) -> bytes:
        """A part of the message."""
        content = self._pull_object(run_id, object_id)
        self._log.add(len(content))
        return content

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
        self._log.codes[run_id] = own.hash
        sent = self._get_fab(run.fab_hash, run_id)
        self._log.add(len(sent.content))
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


class _Answers:
    """Notes each message that the node takes, and writes it to the audit log with its answer."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._since = 0.0
        self._bytes = 0
        self.codes: dict[int, str] = {}  # hash of the node's code by run

    def begin(self, message: "Message") -> None:
        """A message was taken."""
        self._since, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        """So many bytes of it have arrived."""
        self._bytes += count

    def end(self, answer: "Message", count: int) -> None:
        """Write a line about an answer of so many bytes; raises OSError where that fails."""
        from flwr.common.constant import ErrorCode

        metadata = answer.metadata
        refused = answer.has_error() and (
            answer.error.code == ErrorCode.INVALID_FAB or error_reason(answer).startswith(REFUSED)
        )
        number = metadata.group_id
        self._audit.write(
            Answered(
                run=str(metadata.run_id),
                code=self.codes.get(metadata.run_id, ""),
                message=metadata.message_type,
                round=int(number) if number.isascii() and number.isdecimal() else None,
                bytes_in=self._bytes,
                bytes_out=count,
                seconds=round(time.monotonic() - self._since, 3),
                outcome="refused" if refused else "failed" if answer.has_error() else "answered",
            )
        )


def _note_answers(log: _Answers) -> None:
    """Let Flower's loop send no answer before its line is written; else the node ends."""
    from flwr.supercore.exit import ExitCode, flwr_exit
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supernode import start_client_internal as loop

    push = loop._push_messages

    @wraps(push)
    def push_noted(**arguments: Any) -> None:
        send, store = arguments["send"], arguments["object_store"]

        def size(object_id: str) -> int:
            while (content := store.get(object_id)) == b"":  # the app is still handing it over
                time.sleep(_POLL_SECONDS)
            return len(content or b"")

        def send_noted(answer: "Message", tree: Any, seconds: float) -> Any:
            ids = {part.object_id for part in iterate_object_tree(tree)}
            try:
                log.end(answer, sum(map(size, ids)))
            except OSError as error:
                why = f"cannot write the audit log, and no answer leaves that is not in it: {error}"
                flwr_exit(ExitCode.COMMON_PATH_INVALID, why)
            return send(answer, tree, seconds)

        push(**{**arguments, "send": send_noted})

    loop._push_messages = push_noted  # type: ignore[assignment]
