"""What several commands have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pluralllm_app import __version__
from pluralllm_app.core.code import installed_hash
from pluralllm_app.survey.sources.stated import DECIMALS

ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of settings, e.g. conf/paper.toml.")
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("-c", "--set", help="Settings 'key=value ...'; they win over --config."),
]

EncodingOption = Annotated[
    str | None,
    typer.Option(
        help="Encoding of the file, and of a table of descriptions, where it is not clear by "
        "itself: utf-8, cp1252, utf-16 ..."
    ),
]
DecimalOption = Annotated[
    str | None,
    typer.Option(
        help=f"Decimal sign of a table where it is not clear by itself: {' or '.join(DECIMALS)}."
    ),
]
OriginOption = Annotated[
    str | None,
    typer.Option("--source", help="Whose answers a table holds, as survey.json states it."),
]
LicenceOption = Annotated[
    str | None, typer.Option(help="Under which licence, as survey.json states it.")
]

MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="Of a file with one row per person: what its codes say; `pluralllm questionnaire "
        "x.sav --out x.toml` makes a draft.",
    ),
]
WeightOption = Annotated[
    str | None,
    typer.Option(help="And which column weighs people, or none. Default: what the map says."),
]
ByOption = Annotated[
    str | None,
    typer.Option(help="And which columns, separated by commas, tell groups apart. Default: map."),
]
FewestOption = Annotated[
    int | None,
    typer.Option(
        "--min-respondents",
        min=1,
        help="And how many effective respondents an answer needs. Default: 30.",
    ),
]


def _say_version(asked: bool) -> None:
    if asked:
        print(f"pluralllm {__version__}, code {installed_hash()}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Say which version this is, and the hash of its code.",
        is_eager=True,
        callback=_say_version,
    ),
]


@contextmanager
def starting(console: Console) -> Iterator[None]:
    """Say that the command has begun, while the block imports torch and the like for seconds."""
    console.print("Starting ...")
    with console.status("starting"):
        yield
