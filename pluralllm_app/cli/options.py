"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of settings, e.g. conf/paper.toml.")
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("-c", "--set", help="Settings 'key=value ...'; they win over --config."),
]
