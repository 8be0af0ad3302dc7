"""The `pluralllm` command."""

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from pluralllm_app.errors import UserError
from pluralllm_app.survey.command import prepare_command

app = typer.Typer(
    name="pluralllm",
    help="Federated training of a group preference predictor (PluralLLM) on Flower.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command("prepare")(prepare_command)


@app.command("run")
def run_command(
    survey: Annotated[
        Path | None, typer.Option(help="Prepared survey; without one, the built-in demo.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings, e.g. conf/paper.toml.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("-c", "--set", help="Settings 'key=value ...'; they win over --config."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to write; default: runs/<time>-seed<seed>.")
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Client processes; default: the CPUs over client-threads."),
    ] = None,
) -> None:
    """Train a predictor over the groups of a survey in Flower's Ray simulation.

    Every setting and its default is in [tool.flwr.app.config] of pyproject.toml.

    Examples:

      pluralllm run

      pluralllm run --survey data/globalopinionqa --config conf/paper.toml -c 'seed=3'

      pluralllm run -c 'strategy=fedprox fedprox.mu=0.1' --out runs/fedprox
    """
    from pluralllm_app.run import run

    run(survey, config, setting or [], out, actors, Console())


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command: exit status 1 with the cause on a mistake, 130 (typer's) on Ctrl-C."""
    # A supervisor's or a shell's SIGTERM ends a run as tidily as Ctrl-C does.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(
            f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
