"""`pluralllm settings`: what every setting is, and mistyped settings on a command line."""

import json
import shlex
from collections.abc import Sequence
from typing import Any, Never

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperCommand

from pluralllm_app.engines.app_files import APP
from pluralllm_app.engines.settings_list import list_settings
from pluralllm_app.errors import TooSmallError, UserError
from pluralllm_app.settings_files import read_defaults

_GIVEN = "pluralllm.given"  # the words after the command's name


def print_settings(word: str, console: Console) -> None:
    """Print the settings that have a word in their names or descriptions; "": all.

    Raises:
        UserError: none has.
    """
    shown = 0
    for line in list_settings():
        if word.casefold() not in f"{line.name} {line.about} {line.allowed}".casefold():
            continue
        shown += 1
        given = f"{line.name} = {json.dumps(line.default)}"
        said = f"{given:<34}  {line.allowed}".rstrip()
        console.print(said, style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(Padding(Text(line.about), (0, 0, 0, 4)))
    if not shown:
        raise UserError(f"no setting has {word!r} in its name or description: `pluralllm settings`")


class FittingCommand(TyperCommand):
    """A command that says how it works for a survey that is too small for it as it was given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line, and keep it."""
        ctx.meta[_GIVEN] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TooSmallError as error:
            command = same_command(ctx, error.remedy)
            error.add_note(f"For this survey, this works: {command}")
            raise


def same_command(ctx: click.Context, more: Sequence[str]) -> str:
    """Return the command line of a `FittingCommand` with more words, as a shell takes it."""
    return shlex.join([*ctx.command_path.split(), *ctx.meta[_GIVEN], *more])


class SettingsCommand(FittingCommand):
    """A command that takes settings by -c, and says so where one is given as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; click's errors but for a setting."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            _refuse_setting(error, given, ctx)


def _refuse_setting(error: click.NoSuchOption, given: list[str], ctx: click.Context) -> Never:
    name = error.option_name.lstrip("-").replace("_", "-")
    if name not in read_defaults(APP / "pyproject.toml"):
        raise error
    value: Any = "..."
    for place, word in enumerate(given):
        option, assigned, rest = word.partition("=")
        if option == error.option_name:
            value = rest if assigned else next(iter(given[place + 1 :]), "...")
    pair = shlex.quote(f"{name}={value}")
    pair = pair if pair.startswith("'") else f"'{pair}'"
    raise click.UsageError(f"{error.option_name} is a setting, not an option: give -c {pair}", ctx)
