"""The `pluralllm prepare` command."""

from pathlib import Path
from typing import Annotated

import click
import typer

from pluralllm_app.cli.options import (
    ByOption,
    DecimalOption,
    EncodingOption,
    FewestOption,
    LicenceOption,
    MapOption,
    OriginOption,
    WeightOption,
    starting,
)
from pluralllm_app.cli.settings import FittingCommand, same_command
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.survey.embedders.registry import EMBEDDERS, SENTENCE_EMBEDDER, advice
from pluralllm_app.survey.info import METRICS, ORDINAL_METRICS
from pluralllm_app.survey.sources.registry import SOURCES
from pluralllm_app.survey.sources.stated import Stated

_SOURCES = "\n\n".join(f"  {name}: {source.summary}." for name, source in SOURCES.items())
HELP = f"""Turn survey answers into a prepared survey, which every run reads.

SOURCE is one of:

{_SOURCES}

A table of your own has one row per question, group and option, with the columns question_id,
question, option, group, and share or count. A column called value makes the options ordinal, a
column called description says who a group is. How the file was saved is found out and said;
data/README.md lists what is read.

If the command is interrupted while it embeds the questions, repeat it to continue.

Examples:

  pluralllm prepare demo --out data/demo

  pluralllm prepare globalopinionqa --file global_opinions.csv --out data/pew
  --embedder sentence-transformers/all-MiniLM-L6-v2

  pluralllm prepare globalopinionqa --out data/all --evaluation-fraction 0.3
  --min-questions 100 --seed 7

  pluralllm prepare table --file mine.csv --out data/mine --train North --evaluation South

  pluralllm prepare opinionqa --file steerable_opinionqa.json --out data/opinionqa
"""


class PrepareCommand(FittingCommand):
    """Names the sources where none is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; click's errors but for a missing source."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            if not error.param or error.param.name != "source":
                raise
            raise click.UsageError(
                "name a source and --out, as in `pluralllm prepare demo --out data/demo`. Sources:"
                f"\n\n{_SOURCES}",
                ctx,
            ) from error


def prepare_command(
    source: Annotated[str, typer.Argument(help=f"{', '.join(SOURCES)}.")],
    out: Annotated[Path, typer.Option(help="Directory for the prepared survey.")],
    embedder: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(EMBEDDERS)}, or a transformers model by hub name or local path."
        ),
    ] = "hashing",
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt for a transformers model: plain (question Answer: option) or alpaca "
            "(instruction, input, response). Default: plain."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="File to read: .csv, .tsv, .txt, .parquet or .jsonl, also with .gz; for opinionqa "
            ".json or a directory; for microdata also .sav, .dta and .por."
        ),
    ] = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    origin: OriginOption = None,
    licence: LicenceOption = None,
    map_: MapOption = None,
    weight: WeightOption = None,
    by: ByOption = None,
    min_respondents: FewestOption = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="A group that trains; repeat it for more. Default: all others."),
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option(help="A group that never trains; repeat it for more.")
    ] = None,
    evaluation_fraction: Annotated[
        float | None,
        typer.Option(help="Instead of names: the fraction of groups that never train, by --seed."),
    ] = None,
    min_questions: Annotated[
        int, typer.Option(min=1, help="How many questions a group must answer to take part.")
    ] = 30,
    descriptions: Annotated[
        str,
        typer.Option(
            help="What says who the groups are: names, none, or a table with the columns group "
            "and description, which adds to the names."
        ),
    ] = "names",
    metric: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(METRICS)}; {', '.join(ORDINAL_METRICS)} keeps only the questions "
            "whose options have ordinal values. Default: wasserstein for opinionqa, else "
            "jensen-shannon."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the demo and of the split by fraction.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the survey that is already there.")
    ] = False,
) -> None:
    """Prepare a survey; `HELP` is what the user reads of it."""
    need("survey", "`pluralllm prepare`")
    console = Terminal()
    with starting(console):
        # Here and not above: `pluralllm --help` need not wait for torch and pandas.
        from pluralllm_app.survey.prepare import prepare

    survey = prepare(
        source,
        out,
        embedder=embedder,
        template=template,
        file=file,
        stated=Stated(encoding, decimal, origin, licence, map_, weight, by, min_respondents),
        train=train or (),
        evaluation=evaluation or (),
        evaluation_fraction=evaluation_fraction,
        min_questions=min_questions,
        descriptions=descriptions,
        metric=metric,
        seed=seed,
        overwrite=overwrite,
        console=console,
    )
    better = ["--embedder", SENTENCE_EMBEDDER, *([] if overwrite else ["--overwrite"])]
    command = same_command(click.get_current_context(), better)
    if said := advice(survey.embedder, survey.synthetic, command):
        console.print(said, soft_wrap=True, highlight=False, markup=False)
