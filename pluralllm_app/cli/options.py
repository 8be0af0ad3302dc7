"""What several commands have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of settings, e.g. conf/paper.toml.")
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("-c", "--set", help="Settings 'key=value ...'; they win over --config."),
]


@contextmanager
def starting(console: Console) -> Iterator[None]:
    """Say that the command has begun, while the block imports torch and the like for seconds."""
    console.print("Starting ...")
    with console.status("starting"):
        yield
