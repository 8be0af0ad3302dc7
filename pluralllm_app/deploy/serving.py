"""The web server of a SuperLink: uvicorn, which knows its connections from when they are accepted.

uvicorn by itself limits neither the number of connections nor the time for TLS and headers, and
sees a connection only when TLS is agreed on.
"""

import gc
import socket
import sys
from asyncio import Transport, sslproto
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pluralllm_app.deploy.connections import Connection, Connections

BACKLOG = 2048
SLICE = 4096
"""Bytes that are parsed at once."""
TLS_BUFFER = 32 * 1024
"""Bytes that asyncio keeps for each connection with TLS, instead of 256 KiB."""
SILENT_SECONDS = 30
"""Connections on which nothing is said are the kernel's alone for so long."""


class _Accepted(socket.socket):
    """A connection's socket, which says when it is closed."""

    connections: Connections
    connection: Connection

    def close(self) -> None:
        self.connections.closed(self.connection)
        super().close()

    def cut(self) -> None:
        """End both directions; who reads the socket then closes it."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end has done so
            return


class Listener(socket.socket):
    """A listening socket that notes each connection."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        plain, peer = super().accept()
        accepted = _Accepted(plain.family, plain.type, plain.proto, fileno=plain.detach())
        accepted.connections = self.connections
        accepted.connection = self.connections.opened(peer, peer[0], accepted.cut)
        return accepted, peer


def serve(app: Any, host: str, port: int, *, connections: Connections, **options: Any) -> None:
    """Run uvicorn, as `uvicorn.run` does, until it is ended.

    Every request finds its `Connection` in `scope["state"]["connection"]`.

    Args:
        app: an ASGI application.
        host: IP address to listen on.
        port: to listen on.
        connections: the connections that are noted.
        options: further ones of `uvicorn.Config`.
    """

    class Protocol(H11Protocol):
        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connection = connections.find(transport.get_extra_info("peername"))
            if connection is None:
                transport.abort()
                return
            # Also where reading is paused, when nobody notices that the socket has ended.
            connection.cut = transport.abort
            self.app_state = self.app_state | {"connection": connection}

        def data_received(self, data: bytes) -> None:
            """Take what came, slice by slice, up to the headers of a body in chunks.

            `Admission` refuses those. To parse chunks of one byte would take h11 seconds for what
            one read of the socket brings, in which nobody is served.
            """
            for start in range(0, len(data), SLICE):
                if self.transport.is_closing():
                    return
                super().data_received(data[start : start + SLICE])
                if any(name == b"transfer-encoding" for name, _ in self.headers or ()):
                    self.flow.pause_reading()
                    return

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        plain = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        sys.exit(f"cannot listen on {host}, port {port}: {error.strerror}")
    listener = Listener(plain.family, plain.type, plain.proto, fileno=plain.detach())
    listener.connections = connections
    if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_SECONDS)
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    # Connections that are closed are cycles. Without all that the server is made of, garbage
    # collection is quick, and comes often enough that they do not pile up.
    gc.collect()
    gc.freeze()
    # Python's own event loop calls `Listener.accept`, uvloop does not. h11 bounds the headers.
    config = uvicorn.Config(app, loop="asyncio", http=Protocol, ws="none", **options)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)
