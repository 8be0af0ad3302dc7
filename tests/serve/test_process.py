"""The command as a process: token, slow clients, large bodies, and what ends it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.rewards import rendered
from pluralllm_app.serve import limits
from tests.serve.conftest import TOKEN
from tests.support.command import pluralllm
from tests.support.signals import with_handler
from tests.support.used import OFTEN, YES_NO, answers_of
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.slow
BODY = json.dumps({"questions": ["c0"], "answers": {"c1": [0.4, 0.6]}}).encode()
# The seconds that clients have, in a process of its own.
HURRIED = """
import sys
from pluralllm_app.serve import connection
connection.HEAD_SECONDS, connection.BODY_SECONDS = 1, 2
from pluralllm_app.cli.main import main
main()
"""


class Served:
    """A running `pluralllm serve` on a free port."""

    def __init__(self, run: Path, *options: str, program: str | None = None) -> None:
        command = [str(Path(sys.executable).with_name("pluralllm"))]
        if program is not None:
            command = [sys.executable, "-c", program]
        command += ["serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(
            with_handler(signal.SIG_DFL, command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        found = None
        while not found:
            self.said.append(self.process.stdout.readline())
            assert self.said[-1], self.said
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.said[-1])
        self.port = int(found[1])

    def request(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        given = {"Content-Type": "application/json"} | headers
        connection.request("GET" if body is None else "POST", path, body, given)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ended(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit status and what was printed since."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


Serve = Callable[..., Served]


@pytest.fixture
def serve(served_run: Path) -> Iterator[Serve]:
    """Starts a service; none is left after the test."""
    started: list[Served] = []

    def serve(*options: str, program: str | None = None) -> Served:
        started.append(Served(served_run, *options, program=program))
        return started[-1]

    yield serve
    for served in started:
        served.process.kill()
        served.process.communicate()


def closed(connection: socket.socket) -> bytes:
    """What a connection still gives until the service closes it."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def refuses(connection: socket.socket) -> bool:
    """Whether a connection takes not even one more byte."""
    try:
        connection.sendall(b"x")
    except OSError:
        return True
    return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it(serve: Serve, number: signal.Signals, status: int) -> None:
    served = serve()
    assert served.said[0].startswith("Loading ")
    assert "12 questions" in served.said[1]
    assert served.request("/predict", BODY)[0] == 200
    idle = served.socket()
    assert served.ended(number) == (status, "Stopped.\n")
    idle.close()


def test_a_token_comes_by_a_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    served = serve("--token", f"@{tmp_path / 'token'}")
    assert served.request("/predict", BODY)[0] == 401
    status, found = served.request("/predict", BODY, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert len(found["predictions"]) == 1
    assert served.request("/health")[1] == {"status": "ok", "token": True}


def test_a_taken_port_is_said_before_anything_is_loaded(serve: Serve) -> None:
    served = serve()
    second = pluralllm("serve", "/none", "--port", served.port)
    assert second.returncode == 1
    assert "cannot be taken" in second.stderr
    assert second.stdout == ""


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    told = pluralllm("serve", tmp_path, "--port", "0")
    assert told.returncode == 1
    assert "Error: " in told.stderr
    assert "Traceback" not in told.stderr


def test_slow_clients_are_let_go(serve: Serve) -> None:
    served = serve(program=HURRIED)
    silent, head, body = (served.socket() for _ in range(3))
    head.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-")
    body.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{"
    )
    assert served.request("/predict", BODY)[0] == 200
    assert closed(silent) == b""
    assert b" 408 " in closed(body)
    wait_until(lambda: refuses(head))


def test_large_bodies_are_refused_while_they_come(serve: Serve) -> None:
    served = serve()
    connection = served.socket()
    connection.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    part = b" " * 65536
    for _ in range(limits.BODY_BYTES // len(part) + 1):
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    assert b" 413 " in connection.recv(65536)
    connection.close()
    assert served.request("/health")[0] == 200


def test_one_address_has_so_many_connections(serve: Serve) -> None:
    served = serve()
    held = [served.socket() for _ in range(limits.CONNECTIONS_EACH)]
    assert b" 503 " in closed(served.socket())
    for connection in held:
        connection.close()


def test_what_is_no_http_ends_the_connection(serve: Serve) -> None:
    served = serve()
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    for sent in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2 * limits.HEAD_BYTES,
        post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        post + b"Content-Length: -1\r\n\r\n",
        post + b"Transfer-Encoding: xchunked\r\n\r\n",
    ):
        connection = served.socket()
        connection.sendall(sent)
        answer = connection.recv(65536)
        assert re.match(rb"HTTP/1\.1 (400|501) ", answer), sent
        assert b"Traceback" not in answer
        connection.close()
    with served.socket() as connection:  # what comes after a request may be anything
        connection.sendall(post + b"Content-Length: 2\r\n\r\n{}\x00\x01\r\n\r\n")
        assert closed(connection).startswith(b"HTTP/1.1 4")
    assert served.request("/health")[0] == 200
    assert served.ended(signal.SIGTERM) == (0, "Stopped.\n")


def test_rollouts_of_openrlhf_are_rewarded_while_they_come(serve: Serve, tmp_path: Path) -> None:
    """Each completion is a request of its own, and many come at once."""
    lines = ["question,option,share"]
    for question, shares in answers_of("North", OFTEN).items():
        lines += [f"{question},{option},{100 * share:.1f}" for option, share in shares.items()]
    (tmp_path / "north.csv").write_text("\n".join(lines))
    served = serve("--group", f"North={tmp_path / 'north.csv'}", "--decimal", "point")
    assert served.said[1] == "Note on North: read as percentages\n"
    prompt = rendered(YES_NO[0])
    sign = "<|im_end|>"

    def reward(completion: str) -> float:
        body = {"query": [prompt + completion + sign], "prompts": [prompt], "labels": [None]}
        status, found = served.request("/reward?group=North&unread=0", body=json.dumps(body))
        assert status == 200, found
        (only,) = found["rewards"]
        return float(only)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(reward, ["A", "B", "Hm."] * 16))
    yes, no, unread = found[:3]
    assert found == [yes, no, unread] * 16
    assert (yes + no, unread) == (pytest.approx(1), 0)
    assert no > 0.6  # North likes no change
