"""Servers that are busy, away or slow; keys and proxies."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.judge import server
from tests.support.model_server import Reply, Request, model_server, well_behaved


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", ["0.01", formatdate(0, usegmt=True), None, "soon"])
def test_it_waits_and_asks_again(asks: Callable[..., Any], status: int, after: str | None) -> None:
    seen: set[str] = set()

    def busy(request: Request) -> Reply:
        again = request.prompt in seen
        seen.add(request.prompt)
        headers = {} if after is None else {"Retry-After": after}
        return well_behaved(request) if again else Reply(b"wait", status, headers)

    with model_server(busy) as running:
        answers, _ = asks(f"{running.address}#small")
    assert len(answers) == 30


def test_it_waits_as_long_as_it_is_asked_to(asks: Callable[..., Any]) -> None:
    count = iter(range(1000))

    def busy(request: Request) -> Reply:
        return well_behaved(request) if next(count) else Reply(b"", 429, {"Retry-After": "0.3"})

    start = time.monotonic()
    with model_server(busy) as running:
        asks(running.address)
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ("3.5", 3.5),
        (formatdate(2**33, usegmt=True), pytest.approx(2**33 - time.time(), rel=0.01)),
        ("0", 2.0),
        (formatdate(0, usegmt=True), 2.0),
        ("-9", 2.0),
        ("inf", 2.0),
        ("nan", 2.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 2.0),
        ("soon", 2.0),
    ],
)
def test_a_pause_is_never_shorter_than_usual(after: str, seconds: float) -> None:
    """A server that is busy is not asked five times at once, whatever it says."""
    assert server.asked_pause(httpx.Headers({"Retry-After": after}), 2.0) == seconds


def test_it_does_not_wait_for_ever(asks: Callable[..., Any]) -> None:
    with (
        model_server(lambda _: Reply(b"", 429, {"Retry-After": "3600"})) as running,
        pytest.raises(UserError, match=r"answers 429 and asks to wait 3600 s: repeat the command"),
    ):
        asks(f"{running.address}#small")


def test_a_server_that_is_away_is_named(asks: Callable[..., Any]) -> None:
    with model_server(well_behaved) as running:
        pass
    with pytest.raises(UserError, match=r"does not answer \(.*refused.*see that the server runs"):
        asks(f"{running.address}#small")


def test_a_server_that_is_slow_is_named(
    asks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(server, "TRIES", 2)

    def slow(request: Request) -> Reply:
        time.sleep(0.3)
        return well_behaved(request)

    with model_server(slow) as running, pytest.raises(UserError, match=r"does not answer \(timed"):
        asks(f"{running.address}#small")


class Endless(BaseHTTPRequestHandler):
    """Answers with one space after the other, until nobody listens any more."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(ConnectionError):
            while True:
                self.wfile.write(b"1\r\n \r\n")
                time.sleep(0.01)  # less than any answer may take

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_answer_that_never_ends_is_given_up(
    asks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(server, "TRIES", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as endless:
        thread = threading.Thread(target=endless.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with pytest.raises(UserError, match=r"does not answer \((no whole answer|timed)"):
            asks(f"http://127.0.0.1:{endless.server_port}/v1#small")
        endless.shutdown()
        thread.join()


def test_a_key_is_sent_and_never_shown(asks: Callable[..., Any]) -> None:
    key = "sk-secret-1234"
    with model_server(well_behaved) as running:
        asks(running.address, key=key)
    assert running.asked[-1].headers["Authorization"] == f"Bearer {key}"

    def refusing(request: Request) -> Reply:
        said = f"Incorrect key: {request.headers['Authorization']}"
        return Reply({"error": {"message": said}}, 401)

    with model_server(refusing) as running, pytest.raises(UserError) as caught:
        asks(f"{running.address}#other", key=key)
    assert "refuses the key in $PLURALLLM_MODEL_KEY (401" in str(caught.value)
    assert key not in str(caught.value)
    assert "[the key]" in str(caught.value)
    for bad in ("", "two\nlines", " sk", "schlüssel"):
        with pytest.raises(UserError, match="PLURALLLM_MODEL_KEY has characters"):
            asks(running.address, key=bad)


def test_a_proxy_is_used_and_named(
    asks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:  # bound, so that nobody else gets the port, and deaf
        silent.bind(("127.0.0.1", 0))
        proxy = f"http://user:hidden@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(
            UserError, match=r"through the proxy (HTTP_PROXY|http_proxy)=http://127"
        ) as e:
            asks("http://model.example/v1#small")
    assert "hidden" not in str(e.value)
    monkeypatch.setenv("http_proxy", "ftp://proxy.example")
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy.example")
    with pytest.raises(UserError, match="the proxy that the environment names cannot be used"):
        asks("http://model.example/v1#small")
