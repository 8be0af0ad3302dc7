"""`pluralllm serve`: a trained predictor over HTTP, with a page."""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.options import DecimalOption
from pluralllm_app.cli.use import (
    EmbedderOption,
    ModelArgument,
    QuestionnaireOption,
    TableEncodingOption,
    stated_of,
)
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.errors import UserError
from pluralllm_app.serve.address import TOKEN_VARIABLE, bind, read_token
from pluralllm_app.survey.embedders.names import shown


def serve_command(
    model: ModelArgument,
    host: Annotated[
        str, typer.Option(help="Interface to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: one that is free.")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE,
            help="Text that requests have to bear, or @FILE with it, which others cannot see.",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A group that /reward may score by, and a table of its answers; may be repeated.",
        ),
    ] = None,
    encoding: TableEncodingOption = None,
    decimal: DecimalOption = None,
    embedder: EmbedderOption = None,
    questionnaire: QuestionnaireOption = None,
) -> None:
    """Serve a trained predictor over HTTP: a page to try it with, and a JSON API.

    The page is at the address that is printed, and the API is described there in /openapi.json.
    Only this machine can reach it, unless --host says otherwise. Ctrl-C ends it.

    Examples:

      pluralllm serve runs/first

      pluralllm serve runs/first --host 0.0.0.0 --token @token.txt

      pluralllm serve runs/first --group North=north.csv --group South=south.csv
    """
    need("serve", "`pluralllm serve`")
    files = _groups(group or [])
    stated = stated_of(files.values(), encoding, decimal)
    known_token = read_token(token)
    address = bind(host, port, known_token)
    console = Terminal()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"Loading {model} ...")
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.ERROR)
    from pluralllm_app.serve.running import prepare, serve
    from pluralllm_app.use.predictor import Predictor

    predictor = Predictor.from_pretrained(model, questionnaire=questionnaire, embedder=embedder)
    service = prepare(predictor, embedder, files, stated)
    for each in service.rewards.named:
        for note in each.notes:
            say(f"Note on {each.name}: {note}")
    if not predictor.texts.ready:
        say(
            "New questions and descriptions of groups are not taken: they need the survey's "
            f"embedder ({shown(predictor.about.embedder)}), see --embedder."
        )
    reach = "this machine alone reaches it" if address.loopback else "whoever reaches this machine"
    bearer = "with the token" if known_token else "without a token"
    ended = {"status": 130}

    def end(*_: object) -> None:
        ended["status"] = 0  # what a service manager sends, and takes for a good end
        raise KeyboardInterrupt

    def begun() -> None:
        say(
            f"Serving {predictor.model.title} of {predictor.about.survey}, "
            f"{len(predictor.questions)} questions, at {address.url} ({reach}, {bearer}). "
            "Ctrl-C ends it."
        )

    signal.signal(signal.SIGTERM, end)
    try:
        serve(service, address, host, known_token, begun)
    except KeyboardInterrupt:
        say("Stopped.")
        raise typer.Exit(ended["status"]) from None


def _groups(given: list[str]) -> dict[str, Path]:
    """Files by the name of their group."""
    files: dict[str, Path] = {}
    for each in given:
        name, sign, file = each.partition("=")
        if not name or not file or name in files:
            why = "names its group a second time" if sign and file and name else "is no NAME=FILE"
            raise UserError(f"--group {each} {why}: give each group a name and a table")
        files[name] = Path(file).expanduser()
    return files
