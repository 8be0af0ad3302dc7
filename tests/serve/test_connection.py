"""A client that does not read holds its connection for so long, and no longer."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from pluralllm_app.serve.connection import Connection
from tests.support.waiting import wait_until

LARGE = 64 * 1024 * 1024  # bytes: more than the buffers of both ends hold


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server of one large response."""
    monkeypatch.setattr("pluralllm_app.serve.connection.READ_SECONDS", 1)

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await Request(scope, receive).body()
        await Response(b" " * LARGE)(scope, receive, send)

    config = uvicorn.Config(
        app, port=0, http=Connection, ws="none", lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join()


def test_clients_that_do_not_read_are_let_go(server: uvicorn.Server) -> None:
    place = server.servers[0].sockets[0].getsockname()
    with socket.create_connection(place) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.server_state.total_requests)
        wait_until(lambda: not server.server_state.connections)
