"""The `pluralllm` command."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pluralllm_app.cli import prepare, questionnaire, use
from pluralllm_app.cli.deploy import deploy_app
from pluralllm_app.cli.judge import judge_command
from pluralllm_app.cli.options import ConfigOption, SettingOption, VersionOption, starting
from pluralllm_app.cli.paragraphs import join_lines
from pluralllm_app.cli.paths import at_home, path_fault
from pluralllm_app.cli.serve import serve_command
from pluralllm_app.cli.settings import FittingCommand, SettingsCommand, print_settings
from pluralllm_app.cli.site import site_app
from pluralllm_app.cli.stopping import heed_signals
from pluralllm_app.cli.streams import prepare_streams
from pluralllm_app.core.environment import no_proxy
from pluralllm_app.core.parts import explained, need
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.methods import METHODS

app = typer.Typer(
    name="pluralllm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


SurveyOption = Annotated[
    Path | None, typer.Option(help="Prepared survey; without one, the built-in demo.")
]
app.command("prepare", help=prepare.HELP, cls=prepare.PrepareCommand)(prepare.prepare_command)
app.command("predict")(use.predict_command)
app.command("ask")(use.ask_command)
app.command("card")(use.card_command)
app.command("serve")(serve_command)
app.command("judge")(judge_command)
app.command("questionnaire", help=questionnaire.HELP, cls=FittingCommand)(
    questionnaire.questionnaire_command
)
app.add_typer(site_app, name="site")
app.add_typer(deploy_app, name="deploy")


@app.callback()
def options(version: VersionOption = False) -> None:
    """Federated training of a group preference predictor (PluralLLM) on Flower."""


@app.command("run", cls=SettingsCommand)
def run_command(
    survey: SurveyOption = None,
    config: ConfigOption = None,
    setting: SettingOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to write; default: runs/<time>-seed<seed>.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run directory to go on with, with its own survey and settings."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Client processes; default: the CPUs over client-threads."),
    ] = None,
) -> None:
    """Train a predictor over the groups of a survey in Flower's Ray simulation.

    `pluralllm settings` lists all settings, `pluralllm settings strategy` the strategies.

    Examples:

      pluralllm run

      pluralllm run --survey data/globalopinionqa --config conf/paper.toml -c 'seed=3'

      pluralllm run -c 'strategy=fedprox fedprox.mu=0.1' --out runs/fedprox

      pluralllm run --resume runs/fedprox
    """
    need("federation", "`pluralllm run`")
    from pluralllm_app.engines.launch import run

    run(survey, config, setting or [], out, resume, actors, Terminal())


COMPARE_HELP = f"""Compare ways to predict the groups' answers, each under several seeds.

All are scored on the same contexts. What is finished is not run again.

Methods: {", ".join(METHODS)}.

Examples:

  pluralllm compare --seeds 2

  pluralllm compare --survey data/globalopinionqa --config conf/paper.toml

  pluralllm compare --method federated --method consensus --out runs/quick
"""


@app.command("compare", help=COMPARE_HELP, cls=SettingsCommand)
def compare_command(
    survey: SurveyOption = None,
    config: ConfigOption = None,
    setting: SettingOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to write or go on with; default: runs/compare-<survey>."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from the settings' own seed on.")] = 5,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="A method to compare, may be repeated; default: all."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs side by side; default: the CPUs over client-threads."),
    ] = None,
) -> None:
    need("federation", "`pluralllm compare`")
    console = Terminal()
    with starting(console):
        from pluralllm_app.cli.compare import compare

    compare(survey, config, setting or [], out, seeds, method or [], jobs, console)


@app.command("centralized", cls=SettingsCommand)
def centralized_command(
    budget: Annotated[
        str, typer.Option(help="paper, equal-steps, equal-tasks or converged.")
    ] = "equal-tasks",
    survey: SurveyOption = None,
    config: ConfigOption = None,
    setting: SettingOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to write; default: runs/<time>-...")
    ] = None,
) -> None:
    """Train on all groups in one place, without a federation, for comparison.

    Budgets: paper (100 steps of one task from every group, as published), equal-steps (as many
    optimiser steps as a federated client takes), equal-tasks (as many tasks as the federated run),
    converged (until the train groups' held-out score stops rising).

    Example:

      pluralllm centralized --budget paper --survey data/globalopinionqa --config conf/paper.toml
    """
    need("federation", "`pluralllm centralized`")
    console = Terminal()
    with starting(console):
        from pluralllm_app.cli.compare import centralized

    centralized(survey, config, setting or [], out, budget, console)


@app.command("settings")
def settings_command(
    word: Annotated[
        str, typer.Argument(help="Only settings with this in their names or descriptions.")
    ] = "",
) -> None:
    """List the settings of a run, with defaults, what each may be, and a line about it.

    Example:

      pluralllm settings rate
    """
    need("federation", "`pluralllm settings`")
    print_settings(word, Terminal())


@app.command("report")
def report_command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Run directories and comparisons.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Page to write, its figures in a folder beside it; replaces an earlier report."
        ),
    ] = Path("report.html"),
    survey: Annotated[
        Path | None,
        typer.Option(help="Prepared survey of the runs; default: where they found it."),
    ] = None,
    no_answers: Annotated[
        bool,
        typer.Option("--no-answers", help="Leave out the groups' answers, to share the page."),
    ] = False,
) -> None:
    """Write runs and comparisons as one HTML page that needs no network, with its figures.

    The page has the table of all methods, training loss, alignment, fairness and costs, and the
    predicted and true answers of every group to every question that was scored. The figures are
    also written as PNG and SVG. Unfinished runs are shown as far as they have come.

    Examples:

      pluralllm report runs/compare-demo

      pluralllm report runs/fedavg runs/fedprox --out strategies.html

      pluralllm report runs/compare-globalopinionqa --survey data/globalopinionqa --no-answers
    """
    need("report", "`pluralllm report`")
    console = Terminal()
    with starting(console):
        from pluralllm_app.report.build import report

    report(paths, out, survey, not no_answers, console)


join_lines(app)


def _in_utf_8(argument: str) -> str:
    """A word of the command line, also where the locale is C and the word in UTF-8.

    Raises:
        UserError: it is in neither encoding.
    """
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(argument).decode()
    except UnicodeError as error:
        # Neither TOML nor Parquet can hold it.
        raise UserError(f"{argument!r} is not in UTF-8: give another name") from error


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working directory cannot be used ({error.strerror}): change to another one"
        ) from error


def main() -> None:
    """Run the command: exit status 1 with the cause on a mistake, 130 (typer's) when stopped.

    What stops it leaves no process behind.
    """
    heed_signals()
    prepare_streams()
    os.environ.update(no_proxy(os.environ))
    try:
        sys.argv = [at_home(_in_utf_8(argument)) for argument in sys.argv]
        _check_working_directory()
        with explained("this command"):
            app(prog_name="pluralllm")
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else path_fault(error)
        if said is None:
            raise
        said = "\n".join((said, *getattr(error, "__notes__", ())))
        Terminal(stderr=True).print(
            f"[bold red]Error:[/] {escape(said)}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
