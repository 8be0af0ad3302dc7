"""Requests to a server of language models: tried again where that helps, refused by name."""

import email.utils
import json
import math
import os
import ssl
import threading
import time
from functools import cache
from textwrap import shorten
from typing import Any

import httpx

from pluralllm_app.core.environment import proxy_to
from pluralllm_app.core.json_text import parse_json
from pluralllm_app.errors import UserError

KEY_VARIABLE = "PLURALLLM_MODEL_KEY"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0  # the longest that an answer may take
TRIES = 5
PAUSE = 1.0  # seconds before the second try; twice as long before each other
LONGEST_PAUSE = 120.0  # that a server may ask for
MOST_BYTES = 2**23  # of an answer
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_ACCEPTABLE = (400, 404, 405, 422, 501)  # what a server says of a request that it cannot serve


class RefusedError(UserError):
    """A server understands a request, and does not take it in this form."""


class Server:
    """A server that speaks JSON; its methods may be called from several threads."""

    def __init__(self, key: str | None) -> None:
        """Prepare to ask.

        Args:
            key: what it is to be shown, where it needs one.

        Raises:
            UserError: the key cannot be sent, or the environment names a proxy that cannot be used.
        """
        headers = {"Accept": "application/json"}
        if key is not None:
            if not key.isascii() or not key.isprintable() or key != key.strip() or not key:
                raise UserError(
                    f"the key in ${KEY_VARIABLE} has characters that no header can hold, or is "
                    "empty: copy it again"
                )
            headers["Authorization"] = f"Bearer {key}"
        self._key = key
        self._stopped = threading.Event()
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                verify=_trusted(),
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise UserError(
                f"the proxy that the environment names cannot be used ({error}): correct "
                "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or list the server in NO_PROXY"
            ) from error

    def stop(self) -> None:
        """End what waits for another try: what is under way is tried once."""
        self._stopped.set()

    def get(self, address: str) -> dict[str, Any]:
        """What the server has at an address; see `post`."""
        return self._tried("GET", address, None)

    def post(self, address: str, content: dict[str, Any]) -> dict[str, Any]:
        """What the server answers to a request.

        Raises:
            RefusedError: it does not take the request.
            UserError: it is away, refuses the key, or answers nonsense.
        """
        return self._tried("POST", address, content)

    def _tried(self, method: str, address: str, content: dict[str, Any] | None) -> dict[str, Any]:
        pause = PAUSE
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES or self._stopped.is_set()
            try:
                status, headers, body = self._once(method, address, content)
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                if last or isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
                    raise self._away(address, error) from error
                wait = pause
            else:
                if status not in _AGAIN or last:
                    return self._read(address, status, headers, body)
                wait = asked_pause(headers, pause)
                if wait > LONGEST_PAUSE:
                    raise UserError(
                        f"{address} answers {status} and asks to wait {wait:.0f} s: repeat the "
                        "command then"
                    )
            self._stopped.wait(wait)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _once(
        self, method: str, address: str, content: dict[str, Any] | None
    ) -> tuple[int, httpx.Headers, bytes]:
        end = time.monotonic() + ANSWER_SECONDS
        with self._client.stream(method, address, json=content) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise UserError(f"{address} answers with more than {MOST_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer in {ANSWER_SECONDS:.0f} s")
            return response.status_code, response.headers, bytes(body)

    def _read(
        self, address: str, status: int, headers: httpx.Headers, body: bytes
    ) -> dict[str, Any]:
        said = self._said(body)
        if status in (401, 403):
            shown = "the key in" if self._key else "a key, to be put into"
            verb = "refuses" if self._key else "asks for"
            raise UserError(f"{address} {verb} {shown} ${KEY_VARIABLE} ({status}{said})")
        if 300 <= status < 400:
            to = self._hidden(headers.get("location", "nowhere"))
            raise UserError(f"{address} sends on to {to}: give that address if it is the model's")
        if status in _ACCEPTABLE:
            raise RefusedError(f"{address} does not take the request ({status}{said})")
        if status != 200:
            tried = f", {TRIES} times" if status in _AGAIN else ""
            raise UserError(f"{address} answers {status}{tried}{said}: repeat the command later")
        try:
            content = parse_json(body)
        except ValueError as error:
            kind = headers.get("content-type", "no stated type").partition(";")[0]
            raise UserError(
                f"{address} answers with {kind} that is no JSON{said}: give the address of the "
                "API, as http://localhost:8000/v1"
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"{address} answers with JSON that is no object{said}")
        if content.get("error"):
            raise RefusedError(f"{address} answers with an error{said}")
        return content

    def _said(self, body: bytes) -> str:
        """The words of an answer, for messages: those of its error where it has one."""
        text = body[:10_000].decode("utf-8", "replace")
        try:
            content = json.loads(text)
            error = content.get("error", content) if isinstance(content, dict) else content
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except (ValueError, RecursionError):
            pass
        text = shorten(self._hidden(text), 300)
        return f": {text}" if text else ""

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "[the key]") if self._key else text

    def _away(self, address: str, error: Exception) -> UserError:
        proxy = proxy_to(address, os.environ)
        way = f" through the proxy {proxy}" if proxy else ""
        what = self._hidden(str(error)) or type(error).__name__
        return UserError(
            f"{address} does not answer{way} ({what}): see that the server runs and that the "
            "address is right, then repeat the command"
        )


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted; they take a second to read."""
    return httpx.create_ssl_context()


def asked_pause(headers: httpx.Headers, usual: float) -> float:
    """How many seconds to wait: as `Retry-After` says, also by a date, and no less than usual."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return usual
    return max(seconds, usual) if math.isfinite(seconds) else usual
