"""The web server of a SuperLink on a real port, with TLS and an application of one line."""

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pluralllm_app.deploy.serving import serve
from tests.support.deployment import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

SERVER = """
import sys
from pluralllm_app.deploy import connections
from pluralllm_app.deploy.serving import serve

connections.PROOF_SECONDS = float(sys.argv[4])
strangers = connections.Connections(strangers=5)

async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/prove":
        assert strangers.prove(scope["state"]["connection"], b"key")
    text = str(len(strangers._open)).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})

serve(
    app, sys.argv[2], int(sys.argv[1]), connections=strangers, lifespan="off",
    ssl_certfile=sys.argv[3] + "/server.crt", ssl_keyfile=sys.argv[3] + "/server.key",
)
"""
Start = Callable[..., int]


@pytest.fixture
def start(made: Path) -> Iterator[Start]:
    """Starts a server with so many seconds for strangers; returns its port."""
    started = []

    def start(seconds: float, host: str = "127.0.0.1") -> int:
        port = free_port()
        arguments = [str(port), host, str(made / "server"), str(seconds)]
        process = subprocess.Popen([sys.executable, "-c", SERVER, *arguments])
        started.append(process)
        wait_until(lambda: answers(port, host) or process.poll() is not None)
        return port

    yield start
    for process in started:
        process.kill()
        process.wait()


def answers(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((host, port)):
            return True
    except OSError:
        return False


def connect(port: int, host: str = "127.0.0.1") -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((host, port)))


def begun(port: int) -> socket.socket:
    """A connection on which TLS begins, and does not go on."""
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(b"\x16")
    return stream


def ask(stream: ssl.SSLSocket, path: str = "/") -> int:
    """How many connections there are, as the server says."""
    stream.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = stream.recv(4096).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200"), head
    return int(body or stream.recv(4096))


def is_cut(stream: socket.socket) -> bool:
    try:
        return stream.recv(1) == b""
    except OSError:
        return True


def test_idle_connections_make_room(start: Start) -> None:
    port = start(600)
    held = [begun(port) for _ in range(20)]
    with connect(port) as stream:
        assert ask(stream, "/prove") <= 6
        for _ in range(10):
            held.append(connect(port))
            assert ask(stream) <= 6
    for each in held[:20]:
        assert is_cut(each)


def test_without_a_key_time_runs_out(start: Start) -> None:
    """Before TLS, after it, and in headers and bodies that come byte by byte."""
    port = start(2)
    before = begun(port)
    after, headers, body = connect(port), connect(port), connect(port)
    headers.sendall(b"GET / HTTP/1.1\r\nx: ")
    body.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1")
    for each in (before, after, headers, body):
        assert is_cut(each)
    with connect(port) as node:
        assert ask(node, "/prove") == 1  # nothing of them is kept


def test_headers_have_a_length(start: Start) -> None:
    port = start(600)
    with connect(port) as stream:
        said = b""
        with contextlib.suppress(OSError):  # cut off before all was sent, or the answer was read
            stream.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * 2**17)
            said = stream.recv(64)
        assert b" 400 " in said or said == b""


def test_chunks_of_a_body_are_not_read(start: Start) -> None:
    """The application would wait for the end of the body; here it is not even parsed."""
    with connect(start(1)) as stream:
        stream.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        stream.sendall(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        assert is_cut(stream)


def test_websockets_are_not_spoken(start: Start) -> None:
    with connect(start(600)) as stream:
        stream.sendall(
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        assert stream.recv(64).startswith(b"HTTP/1.1 200")


def test_it_listens_on_ipv6(start: Start) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with connect(start(600, "::1"), "::1") as stream:
        assert ask(stream, "/prove") == 1


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"127.0.0.1, port {port}: Address already in use"):
            serve(None, "127.0.0.1", port, connections=None)  # type: ignore[arg-type]
