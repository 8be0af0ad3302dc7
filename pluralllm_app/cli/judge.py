"""`pluralllm judge`: how well a language model answers as each group does."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pluralllm_app.core.parts import need
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.errors import UserError
from pluralllm_app.judge import PERSONAS

if TYPE_CHECKING:
    from pluralllm_app.judge.answers import Model
    from pluralllm_app.judge.beside import Setting
    from pluralllm_app.judge.run import Judged

FORMATS = ("table", "csv", "json")
CACHE = Path("runs", "judge-answers.jsonl")


def judge_command(
    survey: Annotated[Path, typer.Option(help="Prepared survey with the groups' answers.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Address of an OpenAI-compatible API, as http://localhost:8000/v1, with #NAME "
            "where it has several models; or directory or hub name of a transformers model."
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="A group, may be repeated; default: those for evaluation."),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="Run or saved predictor to compare with, as in `pluralllm predict`."),
    ] = None,
    questions: Annotated[
        int, typer.Option(min=1, help="Questions of a group, at most; chosen at random.")
    ] = 100,
    persona: Annotated[
        str,
        typer.Option(help="Whether the model is told as whom to answer: both, without or with."),
    ] = "both",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Sample so many answers of each prompt; default: log-probabilities where the "
            "model gives them, else 10.",
        ),
    ] = None,
    cache: Annotated[
        Path, typer.Option(help="File that keeps the model's answers, so that none is lost.")
    ] = CACHE,
    format_: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "table",
    export: Annotated[
        Path | None,
        typer.Option(help="Write tasks of lm-evaluation-harness into this new directory."),
    ] = None,
) -> None:
    """Judge how well a language model answers as each group does.

    The model is put the survey's questions with lettered options, as itself and as a member of each
    group, and its shares are scored with the survey's metric: beside the consensus of the train
    groups, a uniform guess, and a predictor if one is given. A key for the API is read from
    $PLURALLLM_MODEL_KEY.

    Examples:

      pluralllm judge --model http://localhost:8000/v1 --survey data/mine --predictor runs/first

      pluralllm judge --model models/small --survey data/mine --group North --questions 50

      pluralllm judge --survey data/mine --export tasks
    """
    for given, known in ((format_, FORMATS), (persona, PERSONAS)):
        if given not in known:
            option = "--format" if known is FORMATS else "--persona"
            raise typer.BadParameter(f"{option} {given!r}: {did_you_mean(given, known)}")
    if model is None and export is None:
        raise typer.BadParameter("give --model to judge one, --export to write tasks, or both")
    need("judge", "`pluralllm judge`")
    from pluralllm_app.judge.beside import prepare_setting
    from pluralllm_app.survey.prepared import PreparedSurvey

    chosen = None if model is None else _model(model, samples)
    with _working("reading the survey"):
        opened = PreparedSurvey.open(survey)
        opened.verify()
        setting = prepare_setting(opened, group or [], predictor, questions, seed=0)
    if export is not None:
        _export(setting, export)
    if chosen is not None:
        _judge(chosen, setting, persona, cache, format_)


def _model(name: str, samples: int | None) -> "Model":
    if name.startswith(("http://", "https://")):
        from pluralllm_app.judge.endpoint import Endpoint
        from pluralllm_app.judge.server import KEY_VARIABLE

        found = Endpoint(name, os.environ.get(KEY_VARIABLE), samples)
        if found.key_in_the_clear:
            _tell("Note: the key goes over http, where others on the way can read it")
        return found
    if "://" in name:
        raise UserError(f"--model {name!r}: an address begins with http:// or https://")
    if samples is not None:
        raise typer.BadParameter(
            "--samples is for a model behind an API: of one on this machine, the log-probabilities "
            "are read"
        )
    need("embed", "a model on this machine")
    with _working(f"checking {name}"):
        from pluralllm_app.judge.local import LocalModel

        return LocalModel(name)


def _export(setting: "Setting", out: Path) -> None:
    from pluralllm_app.judge.harness import write_tasks

    tasks = write_tasks(setting.plan, out)
    _tell(f"Tasks of lm-evaluation-harness: {', '.join(tasks)} in {out}, see its README.md")
    _tell(
        "The directory holds the groups' answers. Licence of the data: "
        + setting.plan.survey.licence
    )


def _judge(model: "Model", setting: "Setting", persona: str, cache: Path, format_: str) -> None:
    from pluralllm_app.cli.judge_tables import print_verdict
    from pluralllm_app.judge.kept import open_answers
    from pluralllm_app.judge.run import judge_model
    from pluralllm_app.judge.verdict import unanswered

    with open_answers(cache) as kept:
        try:
            with _progress() as watch:
                found: Judged = judge_model(model, setting, persona, kept, watch)
        except KeyboardInterrupt:
            _tell("Stopped. To go on, repeat the command.")
            raise
    print_verdict(found, setting, format_)
    if few := unanswered(found.verdict):
        raise UserError(
            f"the model named no option for too many questions of {', '.join(few)}: the scores "
            "above are on the others alone, and say little. See what it answers, and sample "
            "answers with --samples 10 where it does not begin with a letter"
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from pluralllm_app.records.console import progress_bars

    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with progress_bars(console) as progress:
        bar = progress.add_task("asking the model", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def _working(what: str) -> Iterator[None]:
    with Terminal(stderr=True).status(what):
        yield


def _tell(line: str) -> None:
    Terminal(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
