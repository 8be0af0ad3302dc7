"""What every request passes before anything else: host, rate, token; and what no response lacks."""

import hmac
import logging
import math
import time
import traceback
from collections.abc import Iterable

from h11 import ProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pluralllm_app.serve.messages import Error, Refused, encoded
from pluralllm_app.serve.rates import Rates

logger = logging.getLogger(__name__)
FAILED = Refused(500, "the service failed: its log says where")
OPEN = {"/", "/page.css", "/page.js", "/health", "/openapi.json"}  # they tell nothing of the model
HEADERS = {
    # The page runs its own script and style alone, and speaks to this service alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refusal(refused: Refused) -> Response:
    """The response to a request that is not served."""
    return Response(
        encoded(Error(str(refused))),
        refused.status,
        refused.headers,
        media_type="application/json",
    )


class Guard:
    """Refuses what may not pass; nothing of a request or of this machine is in its log."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str] | None) -> None:
        """Guard an app.

        Args:
            app: to guard.
            token: that requests have to bear; None: none.
            hosts: that requests may name; None: any. On a loopback address it keeps out the pages
                of others whose name was made to point to this machine.
        """
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else frozenset(hosts)
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, send_with_headers)
        except Refused as refused:
            await refusal(refused)(scope, receive, send_with_headers)
        except ProtocolError:
            pass  # the client broke HTTP after its request, and has its answer from uvicorn
        except Exception as error:
            logger.error("%s", _where(error))
            if not started:
                await refusal(FAILED)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        address = scope["client"][0] if scope.get("client") else ""
        if seconds := self._rates.wait(address, time.monotonic()):
            raise Refused(
                429, "too many requests: ask less often", {"Retry-After": str(math.ceil(seconds))}
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy might take the one and this service the other for where the request ends.
            raise Refused(400, "the request states its length twice", {"Connection": "close"})
        if self._hosts is not None and _host(headers.getlist("host")) not in self._hosts:
            raise Refused(400, f"the Host header must be one of {', '.join(sorted(self._hosts))}")
        if self._token is None or scope["path"] in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise Refused(
                401,
                "this needs the header Authorization: Bearer TOKEN, with the service's token",
                {"WWW-Authenticate": "Bearer"},
            )


def _host(values: list[str]) -> str | None:
    """The host that a request names, without port; None unless it names one."""
    if len(values) != 1:
        return None
    name, _, port = values[0].rpartition(":")
    return (name if name and port.isdecimal() else values[0]).lower()


def _where(error: BaseException) -> str:
    """The kind of an error and where it was raised; what it says may hold answers."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.name}:{frame.lineno}" for frame in frames[-5:]]
    return f"internal error: {type(error).__name__} in {' > '.join(places)}"
