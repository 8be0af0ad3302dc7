"""A connection that ends where a client is too slow, or holds too many.

uvicorn closes a connection that is idle between two requests, but waits without end for a request
that has begun, and for a client that does not read.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pluralllm_app.serve.limits import (
    BODY_SECONDS,
    CONNECTIONS,
    CONNECTIONS_EACH,
    HEAD_SECONDS,
    READ_SECONDS,
)
from pluralllm_app.serve.rates import holder

_END = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _END
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _END


class Connection(H11Protocol):
    """uvicorn's protocol with deadlines: for a request's headers, its body, and for reading."""

    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _in_body = False
    _holder = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many connections."""
        super().connection_made(transport)
        self._holder = holder(self.client[0] if self.client else "")
        others = [other for other in self.connections if other is not self]
        of_holder = sum(getattr(other, "_holder", "") == self._holder for other in others)
        if len(others) >= CONNECTIONS or of_holder >= CONNECTIONS_EACH:
            transport.write(_FULL)
            transport.close()
            return
        self._receiving = self.loop.call_later(HEAD_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Take some bytes of a request."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            if self._receiving is None:
                self._receiving = self.loop.call_later(HEAD_SECONDS, self._late)
        elif self.conn.their_state is h11.SEND_BODY:
            if not self._in_body:
                self._in_body = True
                self._received()
                self._receiving = self.loop.call_later(BODY_SECONDS, self._late)
        else:
            self._in_body = False
            self._received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever closed the connection."""
        self._received()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._sending = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also where its client has not read all of the last response."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _late(self) -> None:
        """End a request that did not come in time."""
        self._receiving = None
        if self._in_body and not self.cycle.response_started:
            self.transport.write(_LATE)
        self.transport.close()
        self.loop.call_later(READ_SECONDS, self.transport.abort)
