"""`pluralllm deploy reward`: rewards of completions from a running federation."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.options import SettingOption, starting
from pluralllm_app.core.terminal import Terminal


def reward_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that `init` made.")],
    rollouts: Annotated[
        Path,
        typer.Argument(
            metavar="ROLLOUTS.jsonl",
            help='A line for each completion: {"prompt": "...", "completion": "..."}, and if the '
            "prompt does not say them, question_id, or question and options.",
        ),
    ],
    rule: Annotated[
        str,
        typer.Option(
            help="How groups are put together: mean; or, with -c privacy=none, min, max, nash or "
            "adaptive-alpha."
        ),
    ] = "mean",
    setting: SettingOption = None,
    history: Annotated[
        Path | None,
        typer.Option(help="File of the groups' rewards so far, which adaptive-alpha goes on with."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write instead of printing the rewards.")
    ] = None,
) -> None:
    """Score a language model's completions by what the groups truly answered.

    Run it on the server, while the nodes of all groups that train are connected. A node is asked
    how many of its people pick the options that completions name, and answers if its policy lets
    it. Rewards come as a line of JSON each, in the order of the completions.

    Whoever asks for each option of a survey has all of it: with secure sums, the default, the mean
    over groups; with -c privacy=none every answer of each group.

    Examples:

      pluralllm deploy reward /opt/pluralllm rollouts.jsonl --out rewards.jsonl

      pluralllm deploy reward trial rollouts.jsonl --rule min -c privacy=none
    """
    from pluralllm_app.deploy.groups import read_groups
    from pluralllm_app.errors import UserError

    console = Terminal(stderr=True)
    read_groups(directory)  # a mistyped directory is told at once
    for option, file in (("--out", out), ("--history", history)):
        if file and (file.is_dir() or not os.access(file.resolve().parent, os.W_OK)):
            raise UserError(
                f"{option} {file} cannot be written: give a file in a directory that is there, and "
                "that you may write to"
            )
    with starting(console):
        from pluralllm_app.core.atomic import write_atomically
        from pluralllm_app.deploy.rewarding import reward

    found = reward(directory, rollouts, rule, setting or [], history, console)
    if out:
        write_atomically(out, found.lines())
    else:
        print(found.lines().decode(), end="")
    console.print(str(found.counts), markup=False, highlight=False, soft_wrap=True)
