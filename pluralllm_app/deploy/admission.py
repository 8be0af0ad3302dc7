"""What a SuperLink reads of a request: the headers first, and a body only of whom it may.

Flower reads the whole body of whoever sends one, however large, before it looks at the signature in
the headers. Here a body has a length that is said before and bounded, and one of more than some
kilobytes is read of registered keys alone.
"""

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pluralllm_app.deploy.connections import Connection, Connections
from pluralllm_app.federation.flower_compat import FLEET_PATH
from pluralllm_app.federation.flower_fence import claimed_key, has_signed

SMALL_BODY = 16 * 1024
"""What a stranger may send: a node that is not registered yet asks to be let in, in 200 bytes."""
LOCAL_BODY = 32 * 1024**2
"""What this machine may send: Flower bounds an app's bundle to 10 MiB, and cuts arrays."""


class Admission:
    """Answers what may not be read, and passes on the rest once its body is there.

    Args:
        app: the SuperLink.
        connections: those of its web server, see `serving`.
        largest: bytes of a node's body.
    """

    def __init__(self, app: ASGIApp, connections: Connections, largest: int) -> None:
        self.app = app
        self._connections = connections
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 411, 413 or 503, or pass the request on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        connection: Connection = scope["state"]["connection"]
        if "transfer-encoding" in request.headers:
            await request.refuse(411, "a body needs a content-length", read_on=0)
        elif not scope["path"].startswith(FLEET_PATH):  # of this machine, see `LocalControl`
            self._connections.release(connection)
            await self._pass_on(request, max(LOCAL_BODY, self._largest), read_on=request.length)
        else:
            await self._admit_node(request, connection)

    async def _admit_node(self, request: "_Request", connection: Connection) -> None:
        key = claimed_key(request.scope)
        if key != connection.key:
            try:
                registered = await run_in_threadpool(has_signed, request.scope, key)
            except HTTPException:
                await request.refuse(401, "not signed, or the clock of the caller is wrong")
                return
            if not registered:
                request.close_after()
                await self._pass_on(request, SMALL_BODY, read_on=SMALL_BODY)
                return
        if not self._connections.prove(connection, key):
            await request.refuse(503, "too many connections of this key")
            return
        async with self._connections.slots(key):
            await self._pass_on(request, self._largest, read_on=request.length)

    async def _pass_on(self, request: "_Request", largest: int, read_on: int) -> None:
        """Pass a request on with its whole body, or refuse a body that is too large."""
        if request.length > largest:
            reason = f"a body of {request.length} bytes, where at most {largest} are allowed"
            await request.refuse(413, reason, read_on)
        elif (body := await request.read()) is not None:
            whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
            del body

            async def again() -> Message:
                return whole.pop() if whole else await request.receive()

            await self.app(request.scope, again, request.send)


class _Request:
    """A request, before its body is read."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.headers = Headers(scope=scope)
        self.length = int(self.headers.get("content-length", 0))  # which h11 has checked

    async def read(self) -> bytes | None:
        """The body; None where the caller has gone."""
        body = bytearray()
        while (message := await self.receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                return bytes(body)
        return None

    async def refuse(self, status: int, reason: str, read_on: int = SMALL_BODY) -> None:
        """Answer, and close the connection.

        Args:
            status: of the answer.
            reason: its text.
            read_on: bytes of the body that are read first and dropped: a caller who is still
                sending when the connection is closed may miss the answer.
        """
        while read_on > 0 and (message := await self.receive())["type"] == "http.request":
            read_on -= len(message["body"])
            if not message["more_body"]:
                break
        self.close_after()
        await PlainTextResponse(f"{reason}\n", status)(self.scope, self.receive, self.send)

    def close_after(self) -> None:
        """Let the connection be closed after the answer."""
        send = self.send

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        self.send = closing
