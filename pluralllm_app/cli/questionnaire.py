"""The `pluralllm questionnaire` command."""

from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.options import (
    DecimalOption,
    EncodingOption,
    LicenceOption,
    OriginOption,
    starting,
)
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.core.wording import many
from pluralllm_app.survey.embedders.names import shown
from pluralllm_app.survey.embedders.registry import EMBEDDERS, SENTENCE_EMBEDDER, advice
from pluralllm_app.survey.info import METRICS
from pluralllm_app.survey.microdata.profiles import PROFILES
from pluralllm_app.survey.sources.stated import Stated

HELP = """Make what all groups share: questions, options and embeddings, and no answers.

SOURCE is a table of questions, with one row per option and the columns question_id, question,
option and perhaps value; or a prepared survey; or a map of the variables of a file with one row per
person. Such a map begins as a draft, with --out map.toml, which you edit.

Publish the directory that is written: each group makes its site from it, with `pluralllm site
create`, and the server of a deployment needs it for predictor = 'factors'. The same source gives
the same questionnaire everywhere.

Examples:

  pluralllm questionnaire questions.csv --out questions

  pluralllm questionnaire survey.sav --profile ess --out map.toml

  pluralllm questionnaire map.toml --out questions

  pluralllm questionnaire data/globalopinionqa --out federation/server/questionnaire
"""


def questionnaire_command(
    source: Annotated[Path, typer.Argument(help="Table of questions, or prepared survey.")],
    out: Annotated[
        Path, typer.Option(help="Directory to write; for a draft a file that ends in .toml.")
    ],
    embedder: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(EMBEDDERS)}, or a transformers model by hub name or local path. "
            "Default: hashing."
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt for a transformers model, see `pluralllm prepare`.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help=f"{', '.join(METRICS)}. Default: {METRICS[0]}.")
    ] = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    origin: OriginOption = None,
    licence: LicenceOption = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help=f"For a draft: conventions of a survey, {', '.join(PROFILES)}. Default: of any."
        ),
    ] = None,
) -> None:
    """Make a questionnaire; `HELP` is what the user reads of it."""
    need("survey", "`pluralllm questionnaire`")
    console = Terminal()
    with starting(console):
        from pluralllm_app.survey.make_questionnaire import questionnaire_of, write_draft

    if out.suffix.lower() == ".toml":
        for name, value in {"embedder": embedder, "template": template, "metric": metric}.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} is of no use for a draft: leave it out")
        write_draft(source, out, profile, Stated(encoding, decimal), console)
        return
    if profile is not None:
        raise typer.BadParameter("--profile is for a draft: name it as in --out map.toml")
    written = questionnaire_of(
        source,
        out,
        embedder=embedder,
        template=template,
        metric=metric,
        stated=Stated(encoding, decimal, origin, licence),
        console=console,
    )
    console.print(
        f"{written.path}: {many(len(written.table), 'question')} of {written.name}, without "
        f"answers; embedded by {shown(written.embedder)}, fingerprint {written.fingerprint[:12]}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    again = f"repeat this with --embedder {SENTENCE_EMBEDDER} and another --out"
    if not source.is_dir() and (said := advice(written.embedder, False, again)):
        console.print(said, soft_wrap=True, highlight=False, markup=False)
