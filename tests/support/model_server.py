"""A stand-in for a server of language models with OpenAI's API, on this machine."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pluralllm_app.use.prompts import labels, read_prompt
from tests.support.used import NEW, OFTEN, TRAITS, YES_NO, shares_of

JSON = {"Content-Type": "application/json"}
ITSELF = 0.5  # the trait of the model as itself


@dataclass(frozen=True)
class Reply:
    """What the server answers."""

    content: Any  # bytes as they are, all else as JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


@dataclass(frozen=True)
class Request:
    """What it was asked."""

    path: str
    content: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """Of either API."""
        if "prompt" in self.content:
            return str(self.content["prompt"])
        return str(self.content["messages"][0]["content"])


@dataclass
class ModelServer:
    """Its address, and what it was asked so far."""

    address: str
    asked: list[Request]


Behaviour = Callable[[Request], Reply]


class _Server(ThreadingHTTPServer):
    # Of more connections at once than this, the system tries some again after a second.
    request_queue_size = 128


@contextmanager
def model_server(behave: Behaviour, port: int = 0) -> Iterator[ModelServer]:
    """Run a server that behaves so, and has one model, called "small"."""
    asked: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(behave(self._request({})))

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._send(behave(self._request(json.loads(self.rfile.read(length)))))

        def _request(self, content: dict[str, Any]) -> Request:
            found = Request(self.path, content, dict(self.headers))
            asked.append(found)
            return found

        def _send(self, reply: Reply) -> None:
            content = reply.content
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ModelServer(f"http://127.0.0.1:{server.server_port}/v1", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answered(request: Request) -> list[float]:
    """Probabilities of the letters: what the group that is named answers, or the model itself."""
    question = read_prompt(request.prompt)
    assert question is not None, request.prompt
    who = request.prompt.partition("Question:")[0]
    trait = next((TRAITS[name] for name in NEW if name in who), ITSELF)
    known = YES_NO[0] if len(question.options) == 2 else OFTEN[0]
    by_option = dict(zip(known.options, shares_of(trait, known), strict=True))
    return [by_option[option] for option in question.options]


def well_behaved(request: Request) -> Reply:
    """Log-probabilities of all letters, a tenth of it on another word, in the form asked for."""
    if request.path.endswith("/models"):
        return Reply({"data": [{"id": "small"}]})
    shares = [0.9 * share for share in answered(request)]
    tokens = [*zip(labels(len(shares)), shares, strict=True), (" A", 0.0), ("Well", 0.1)]
    logs = [(token, math.log(share)) for token, share in tokens if share > 0]
    if request.path.endswith("/chat/completions"):
        listed = [{"token": token, "logprob": log, "bytes": None} for token, log in logs]
        logprobs: Any = {"content": [{"token": "A", "logprob": -1, "top_logprobs": listed}]}
        message = {"role": "assistant", "content": "A"}
        return Reply({"choices": [{"message": message, "logprobs": logprobs}]})
    return Reply({"choices": [{"text": "A", "logprobs": {"top_logprobs": [dict(logs)]}}]})


def sampling(texts: Sequence[str | None], several: bool = True) -> Behaviour:
    """A server without log-probabilities, which says `texts` in turn."""
    said = iter(range(10**9))

    def behave(request: Request) -> Reply:
        if request.path.endswith("/models"):
            return Reply({"data": [{"id": "small"}]})
        if "logprobs" in request.content:
            return Reply({"error": {"message": "logprobs are not supported"}}, 400)
        count = request.content.get("n", 1)
        if count > 1 and not several:
            return Reply({"error": {"message": "n must be 1"}}, 400)
        found = [texts[next(said) % len(texts)] for _ in range(count)]
        return Reply({"choices": [{"message": {"content": text}} for text in found]})

    return behave
