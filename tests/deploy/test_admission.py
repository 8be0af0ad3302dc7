"""What a SuperLink reads of a request."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from pluralllm_app.deploy import admission
from pluralllm_app.deploy.admission import LOCAL_BODY, SMALL_BODY, Admission
from pluralllm_app.deploy.connections import CONNECTIONS_OF_KEY, Connection, Connections

LARGEST = 100_000
REGISTERED, UNKNOWN, FORGED = b"a registered key", b"any other key", b"the key of another"
FLEET, CONTROL = "/v1/fleet/push-object", "/v1/control/start-run"


@pytest.fixture(autouse=True)
def _signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header names a key, and all keys but one have signed it."""

    def has_signed(scope: Scope, key: bytes) -> bool:
        if key in (b"", FORGED):
            raise HTTPException(401)
        return key == REGISTERED

    def claimed_key(scope: Scope) -> bytes:
        return dict(scope["headers"]).get(b"key", b"")

    monkeypatch.setattr(admission, "has_signed", has_signed)
    monkeypatch.setattr(admission, "claimed_key", claimed_key)


class Caller:
    """Somebody with one connection; `taken` counts the bytes that were read of the last body."""

    def __init__(self, connections: Connections | None = None) -> None:
        self.connections = connections or Connections()
        self.connection: Connection | None = None
        self.taken = 0
        self.bodies: list[bytes] = []

    def call(self, path: str, length: int, key: bytes = b"", **headers: str) -> tuple[int, str]:
        """The status of the answer, and what becomes of the connection."""
        return asyncio.run(self._call(path, length, key, headers))

    async def _call(
        self, path: str, length: int, key: bytes, headers: dict[str, str]
    ) -> tuple[int, str]:
        self.taken = 0
        self.connection = self.connection or self.connections.opened("x", "192.0.2.1", list)
        given = {"key": key.decode(), "content-length": str(length)} | headers
        sent: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.bodies.append((await receive())["body"])
            await PlainTextResponse("passed on")(scope, receive, send)

        async def receive() -> Message:
            part = min(1000, length - self.taken)
            self.taken += part
            more = self.taken < length
            return {"type": "http.request", "body": bytes(part), "more_body": more}

        async def send(message: Message) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "path": path,
            "method": "POST",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in given.items()
            ],
            "state": {"connection": self.connection},
            "app": SimpleNamespace(),
        }
        await Admission(app, self.connections, LARGEST)(scope, receive, send)
        answered = dict(sent[0]["headers"])
        return int(sent[0]["status"]), answered.get(b"connection", b"keep").decode()


def test_a_node_sends_what_is_allowed() -> None:
    caller = Caller()
    for length in (0, 1, LARGEST):
        assert caller.call(FLEET, length, REGISTERED) == (200, "keep")
        assert caller.bodies.pop() == bytes(length)
    assert caller.call(FLEET, LARGEST + 1, REGISTERED) == (413, "close")
    assert caller.taken == LARGEST + 1  # else it would still send, and not hear the answer


@pytest.mark.parametrize("key", [b"", FORGED])
def test_of_who_has_not_signed_no_body_is_read(key: bytes) -> None:
    caller = Caller()
    assert caller.call(FLEET, 10**9, key) == (401, "close")
    assert caller.taken <= SMALL_BODY + 1000
    assert caller.call(FLEET, 200, key) == (401, "close")
    assert caller.bodies == []


def test_an_unregistered_key_sends_little_and_once() -> None:
    """Flower answers a node that asks to be let in before it is registered."""
    caller = Caller()
    assert caller.call(FLEET, SMALL_BODY, UNKNOWN) == (200, "close")
    assert caller.call(FLEET, SMALL_BODY + 1, UNKNOWN) == (413, "close")
    assert caller.call(FLEET, 10**9, UNKNOWN) == (413, "close")
    assert caller.taken <= SMALL_BODY + 1000


def test_a_body_without_a_length_is_refused() -> None:
    for path, key in ((FLEET, b""), (FLEET, REGISTERED), (CONTROL, b"")):
        caller = Caller()
        assert caller.call(path, 10**9, key, transfer_encoding="chunked") == (411, "close")
        assert caller.taken <= SMALL_BODY + 1000


def test_a_key_is_checked_once_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller()
    assert caller.call(FLEET, 1, REGISTERED) == (200, "keep")
    monkeypatch.setattr(admission, "has_signed", None)
    assert caller.call(FLEET, 1, REGISTERED) == (200, "keep")
    with pytest.raises(TypeError):
        caller.call(FLEET, 1, FORGED)


def test_a_key_with_too_many_connections_is_told_to_come_back() -> None:
    connections = Connections()
    callers = [Caller(connections) for _ in range(CONNECTIONS_OF_KEY + 1)]
    answers = [caller.call(FLEET, 1, REGISTERED) for caller in callers]
    assert answers == [(200, "keep")] * CONNECTIONS_OF_KEY + [(503, "close")]


def test_this_machine_sends_more() -> None:
    caller = Caller()
    assert caller.call(CONTROL, 10 * LARGEST) == (200, "keep")
    assert caller.call(CONTROL, LOCAL_BODY + 1) == (413, "close")


def test_a_node_has_so_many_requests_at_once() -> None:
    most = 0

    async def go() -> None:
        now = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            raise AssertionError

        connections = Connections()
        guarded = Admission(app, connections, LARGEST)
        scopes = [
            {
                "type": "http",
                "path": FLEET,
                "headers": [(b"key", REGISTERED)],
                "state": {"connection": connections.opened(number, "192.0.2.1", list)},
            }
            for number in range(20)
        ]
        await asyncio.gather(*(guarded(scope, receive, send) for scope in scopes))

    asyncio.run(go())
    assert most == 6
