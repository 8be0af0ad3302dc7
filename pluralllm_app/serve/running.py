"""The service as a process: from a predictor to the signal that ends it."""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from pluralllm_app.serve.address import Address
from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.connection import Connection
from pluralllm_app.serve.limits import CONNECTIONS, END_SECONDS, HEAD_BYTES, IDLE_SECONDS
from pluralllm_app.serve.service import Service
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.reading import NOTHING

_NO_EMBEDDER = (
    "this service has none loaded. It takes the survey's own questions, and no description"
)


def prepare(
    predictor: Predictor,
    embedder: str | None,
    files: Mapping[str, Path] | None = None,
    stated: Stated = NOTHING,
) -> Service:
    """A service whose embedder is loaded, or is never looked for.

    Args:
        predictor: to serve.
        embedder: that the user gave; without it none is fetched because of a request.
        files: tables of the answers of groups that `/reward` may be asked for, by their names.
        stated: the encoding and decimal sign of these tables, where they do not say them.

    Raises:
        AnswersError, SurveyError: a table cannot be read.
        PredictorError: the embedder that was given cannot be had, or is another one.
    """
    if embedder is not None:
        predictor.texts.description("People")
    elif not predictor.texts.ready:
        predictor.texts.close(_NO_EMBEDDER)
    named = [
        predictor.group(file, name=name, encoding=stated.encoding, decimal=stated.decimal)
        for name, file in (files or {}).items()
    ]
    return Service(predictor, named)


def serve(
    service: Service, address: Address, host: str, token: str | None, begun: Callable[[], None]
) -> None:
    """Answer requests until the main thread, which this is, is interrupted.

    Args:
        service: see `prepare`.
        address: where to.
        host: the host that the user gave.
        token: that requests have to bear; None: none.
        begun: called once it answers.

    Raises:
        KeyboardInterrupt: by a signal, once requests in hand are answered.
    """
    config = uvicorn.Config(
        make_app(service, token, address.hosts(host)),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL,  # it would log tracebacks; `Guard` logs what fails
        access_log=False,
        proxy_headers=False,  # else any client of this machine could name another's address
        server_header=False,
        backlog=CONNECTIONS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = uvicorn.Server(config)
    # In a thread of its own it leaves signals alone, and this one can be interrupted.
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [address.socket]}, name="http", daemon=True
    )
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        if server.started:
            begun()
        thread.join()
        raise RuntimeError("the HTTP server ended by itself")
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join(2 * END_SECONDS)
        raise
