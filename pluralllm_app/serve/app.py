"""The service over HTTP: its addresses, what they take and what they give."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pluralllm_app.errors import UserError
from pluralllm_app.serve.guard import FAILED, Guard, refusal
from pluralllm_app.serve.lanes import Lane
from pluralllm_app.serve.limits import BODY_BYTES, GROUP_SECONDS, NAME, RESPONSE_BYTES
from pluralllm_app.serve.messages import (
    AskRequest,
    CompareRequest,
    HealthResponse,
    Message,
    PredictRequest,
    Refused,
    RewardRequest,
    decoded,
    encoded,
)
from pluralllm_app.serve.openapi import document
from pluralllm_app.serve.service import Service

JSON = "application/json"
PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(service: Service, token: str | None, hosts: Iterable[str] | None) -> ASGIApp:
    """The whole application.

    Args:
        service: what answers.
        token: see `Guard`.
        hosts: see `Guard`.
    """
    quick, slow = Lane("predict"), Lane("choose")  # choosing and comparing take seconds
    routes = [Route(path, _file(name)) for path, name in PAGE.items()]
    routes += [
        Route("/health", _constant(encoded(HealthResponse("ok", token is not None)))),
        Route("/openapi.json", _constant(encoded(document()))),
        Route("/card", _constant(encoded(service.card()))),
        Route("/questions", _questions(service, quick)),
        Route("/predict", _posted(PredictRequest, service.predict, quick), methods=["POST"]),
        Route("/ask", _posted(AskRequest, service.ask, slow), methods=["POST"]),
        Route("/compare", _posted(CompareRequest, service.compare, slow), methods=["POST"]),
        Route("/reward", _rewarded(service, quick), methods=["POST"]),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(_forget(service))
        yield
        forgetting.cancel()
        with suppress(asyncio.CancelledError):
            await forgetting
        quick.close()
        slow.close()

    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _unknown, Refused: _refused, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, token, hosts)


async def _forget(service: Service) -> None:
    while True:
        await asyncio.sleep(GROUP_SECONDS / 10)
        service.groups.forget()


def _file(name: str) -> Endpoint:
    content = files("pluralllm_app.serve").joinpath("page", name).read_bytes()
    media_type = TYPES[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _constant(content: bytes) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=JSON)

    return answer


def _questions(service: Service, lane: Lane) -> Endpoint:
    async def answer(request: Request) -> Response:
        search, start = (request.query_params.get(name, "") for name in ("search", "start"))
        if len(search) > NAME:
            raise Refused(422, f"search has more than {NAME} characters: search for less")
        if not (start or "0").isascii() or not (start or "0").isdigit() or len(start) > 9:
            raise Refused(422, "start must be a whole number from 0 on")
        found = await lane.do(lambda: encoded(service.questions(search, int(start or 0))))
        return Response(found, media_type=JSON)

    return answer


def _posted(kind: type[Message], act: Callable[[Message], msgspec.Struct], lane: Lane) -> Endpoint:
    async def answer(request: Request) -> Response:
        body = await _body(request)
        return await _worked(lambda: act(decoded(body, kind)), lane)

    return answer


def _rewarded(service: Service, lane: Lane) -> Endpoint:
    async def answer(request: Request) -> Response:
        body, stated = await _body(request), request.query_params.multi_items()
        return await _worked(
            lambda: service.rewards.reward(decoded(body, RewardRequest), stated), lane
        )

    return answer


async def _worked(act: Callable[[], msgspec.Struct], lane: Lane) -> Response:
    """What some work gives, done in its turn."""

    def work() -> bytes:
        try:
            response = encoded(act())
        except UserError as error:
            raise Refused(422, str(error)) from None
        if len(response) > RESPONSE_BYTES:
            raise Refused(422, "the response would be too large: ask for fewer questions")
        return response

    return Response(await lane.do(work), media_type=JSON)


async def _body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        Refused: it is no JSON by its headers, too large, or not all of it came.
    """
    headers = request.headers
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != JSON or charset not in ("", "utf-8"):
        # A page of another site can send forms and plain text without being asked, but no JSON.
        raise Refused(415, f"the request needs the header Content-Type: {JSON}")
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "the request is compressed: send it as it is")
    length = headers.get("content-length", "0")
    if len(length) > 12 or int(length) > BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES:
                raise _too_large()
    except ClientDisconnect:
        raise Refused(400, "the request ended before its body was there") from None
    return bytes(body)


def _too_large() -> Refused:
    return Refused(413, f"the request has more than {BODY_BYTES:,} bytes: send several")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(FAILED)  # Starlette raises the error again, for the guard's log


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: "there is nothing here: /openapi.json tells what there is",
        405: f"{request.method} is none of the methods that this address takes",
    }
    text = said.get(error.status_code, error.detail)
    return refusal(Refused(error.status_code, text, dict(error.headers or {})))
