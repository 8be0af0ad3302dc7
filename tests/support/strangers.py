"""What somebody without a key does to a SuperLink, from this machine and until a block ends.

with Attack(port, 300, idle) as attack:
    ...
attack.answers     # {"cut": 300, "401": 2}
"""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Say = Callable[[bytes], Awaitable[None]]
MOST_BYTES = 149_000_000
"""What is sent on one connection, at most; it is held after that."""
SOURCE = "127.0.0.9"
"""Another address than that of the nodes, which on loopback is 127.0.0.1."""
PUSH = "/v1/fleet/push-object"
START = "/v1/control/start-run"


class _EnoughError(Exception):
    """The SuperLink has answered, or all is sent."""


def head(path: str, *headers: str) -> bytes:
    """The head of a request for an API of Flower."""
    lines = (f"POST {path} HTTP/1.1", "host: x", "content-type: application/protobuf", *headers)
    return "\r\n".join((*lines, "", "")).encode()


async def idle(say: Say) -> None:
    """Say nothing."""


async def one_byte(say: Say) -> None:
    """Begin TLS, and say nothing more."""
    await say(b"\x16")


async def tiny_chunks(say: Say, path: str = PUSH) -> None:
    """Send a body of chunks of one byte."""
    await say(head(path, "transfer-encoding: chunked"))
    while True:
        await say(b"1\r\nx\r\n" * 10_000)


async def large_body(say: Say) -> None:
    """Send what can be sent of a body of 1 GB, and hold it."""
    await say(head(PUSH, "content-length: 1000000000"))
    while True:
        await say(bytes(2**16))


async def slow_headers(say: Say) -> None:
    """Send headers that do not end, byte by byte."""
    await say(head(PUSH)[:-2] + b"x: ")
    while True:
        await say(b"x")
        await asyncio.sleep(1)


async def long_headers(say: Say) -> None:
    """Send headers that do not end, as fast as they are taken."""
    await say(head(PUSH)[:-2] + b"x: ")
    while True:
        await say(b"x" * 2**16)


async def slow_body(say: Say) -> None:
    """Send a small body byte by byte."""
    await say(head(PUSH, "content-length: 200"))
    while True:
        await say(b"x")
        await asyncio.sleep(1)


class Attack:
    """Connections that are opened again whenever the SuperLink ends them.

    Args:
        port: of the SuperLink.
        connections: how many at once.
        talk: what is said on each.
        tls: whether TLS is begun.
    """

    def __init__(
        self,
        port: int,
        connections: int,
        talk: Callable[[Say], Awaitable[None]],
        *,
        tls: bool = True,
    ) -> None:
        self.answers: Counter[str] = Counter()
        self.begun = 0
        self.most = 0
        """Bytes that were sent on one connection, at most."""
        self._port, self._connections, self._talk = port, connections, talk
        self._context = ssl.create_default_context() if tls else None
        if self._context:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._again()) for _ in range(self._connections)]
        while not self._ended.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._once()
            await asyncio.sleep(0.5)

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, local_addr=(SOURCE, 0)
        )
        self.begun += 1
        answer = asyncio.create_task(reader.read(64))
        sent = 0

        async def say(content: bytes) -> None:
            nonlocal sent
            if answer.done() or sent >= MOST_BYTES:
                raise _EnoughError
            writer.write(content)
            await writer.drain()
            await asyncio.sleep(0)  # `drain` alone may never let the answer be read
            sent += len(content)

        try:
            with suppress(OSError, _EnoughError):
                await self._talk(say)
            line = ""
            with suppress(OSError):
                line = (await answer).decode("latin-1")
            self.answers[line.split(" ")[1] if line.startswith("HTTP") else "cut"] += 1
        finally:
            self.most = max(self.most, sent)
            answer.cancel()
            writer.transport.abort()
