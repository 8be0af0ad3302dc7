"""An HTTP proxy that connects its callers to whatever they ask for, and notes what that was."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def connect_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run one in this process; yields its address, and host:port of each call so far."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):  # it is closed at the end
                while True:
                    caller, _ = listener.accept()
                    threading.Thread(target=_connect, args=(caller, asked), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


def _connect(caller: socket.socket, asked: list[str]) -> None:
    head = b""
    while b"\r\n\r\n" not in head and (part := caller.recv(4096)):
        head += part
    target = head.split()[1].decode()
    asked.append(target)
    host, _, port = target.rpartition(":")
    other = socket.create_connection((host, int(port)))
    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for one, to in ((caller, other), (other, caller)):
        threading.Thread(target=_copy, args=(one, to), daemon=True).start()


def _copy(one: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while part := one.recv(1 << 16):
            to.sendall(part)
        to.shutdown(socket.SHUT_WR)
