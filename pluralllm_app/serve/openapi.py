"""The OpenAPI document, from the types of the messages."""

from typing import Any

import msgspec

from pluralllm_app import __version__
from pluralllm_app.serve.limits import LISTED, NAME
from pluralllm_app.serve.messages import (
    AskRequest,
    AskResponse,
    CardResponse,
    CompareRequest,
    CompareResponse,
    Error,
    HealthResponse,
    PredictRequest,
    PredictResponse,
    QuestionsResponse,
    RewardRequest,
    RewardResponse,
)

Json = dict[str, Any]
Kind = type[msgspec.Struct]
_GET: dict[str, tuple[str, Kind]] = {
    "/health": ("Whether the service answers.", HealthResponse),
    "/card": ("What is served, what it was trained on, how well it predicts.", CardResponse),
    "/questions": (
        f"The survey's questions that have all words searched for, {LISTED} from `start` on.",
        QuestionsResponse,
    ),
}
_POST: dict[str, tuple[str, Kind, Kind]] = {
    "/predict": ("Predict how a group answers questions.", PredictRequest, PredictResponse),
    "/ask": ("Choose the questions to put to a group next.", AskRequest, AskResponse),
    "/compare": ("Tell where two groups differ most.", CompareRequest, CompareResponse),
    "/reward": ("Score a language model's completions.", RewardRequest, RewardResponse),
}
_REFUSALS = {
    "400": "The body is no JSON, or the Host header is another one.",
    "401": "The token is missing or wrong.",
    "413": "The body is too large.",
    "415": "The body is of another type than application/json.",
    "422": "Something in the request is not as expected, or not known.",
    "429": "Too many requests; Retry-After says how many seconds to wait.",
    "503": "Too many requests are waiting; Retry-After says how many seconds to wait.",
}
_OF_POST = ("400", "413", "415", "422", "503")


def document() -> Json:
    """The OpenAPI 3.1 document."""
    kinds = [kind for _, *pair in (*_GET.values(), *_POST.values()) for kind in pair]
    _, schemas = msgspec.json.schema_components(
        [*kinds, Error], ref_template="#/components/schemas/{name}"
    )
    paths: Json = {}
    for path, (summary, given) in _GET.items():
        operation: Json = {"summary": summary, "responses": _responses(given, path, post=False)}
        if path == "/questions":
            operation["parameters"] = [
                _parameter("search", {"type": "string", "maxLength": NAME, "default": ""}),
                _parameter("start", {"type": "integer", "minimum": 0, "default": 0}),
            ]
        if path == "/health":
            operation["security"] = []
        paths[path] = {"get": operation}
    for path, (summary, taken, given) in _POST.items():
        body = {"required": True, "content": _content(taken)}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": body,
                "responses": _responses(given, path, post=True),
            }
        }
        if path == "/reward":
            several: Json = {"type": "array", "items": {"type": "string"}}
            paths[path]["post"]["parameters"] = [
                *(_parameter(name, several) for name in ("group", "description")),
                *(_parameter(name, {"type": "string"}) for name in ("rule", "form")),
                _parameter("unread", {"type": "number"}),
            ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pluralllm serve",
            "version": __version__,
            "description": "Predicts how a group answers questions, from some of its answers or a "
            "description. Where the service has a token, all but /health needs it.",
        },
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _responses(kind: Kind, path: str, *, post: bool) -> Json:
    refusals = {"429", *(() if path == "/health" else ("400", "401")), *(_OF_POST if post else ())}
    if path == "/questions":
        refusals.add("422")
    found: Json = {"200": {"description": kind.__doc__ or "", "content": _content(kind)}}
    for status in sorted(refusals):
        found[status] = {"description": _REFUSALS[status], "content": _content(Error)}
    return found


def _content(kind: Kind) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def _parameter(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}
