"""`pluralllm site`: what one group's machine needs of a survey."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pluralllm_app.cli.options import (
    ByOption,
    DecimalOption,
    EncodingOption,
    FewestOption,
    MapOption,
    WeightOption,
    starting,
)
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal
from pluralllm_app.core.wording import many
from pluralllm_app.survey.info import ROLES
from pluralllm_app.survey.sources.stated import Stated

if TYPE_CHECKING:
    from pluralllm_app.survey.site import Site

site_app = typer.Typer(
    no_args_is_help=True,
    help="Make or check what one group's machine needs: questions, and its own answers alone.",
)


@site_app.command("create")
def create_command(
    questionnaire: Annotated[
        Path, typer.Argument(help="Questionnaire, or the prepared survey to cut the site out of.")
    ],
    group: Annotated[str, typer.Option(help="Name of the group.")],
    out: Annotated[Path, typer.Option(help="Directory to write; must be new.")],
    file: Annotated[
        Path | None,
        typer.Option(
            help="The group's answers: a table as `pluralllm prepare table` reads it, or with "
            "--map a file with one row per person (.sav, .dta, .por or a table). Without it the "
            "answers are those in the prepared survey."
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(help=f"{' or '.join(ROLES)} (never trains), as the server registers it."),
    ] = None,
    descriptions: Annotated[
        str | None,
        typer.Option(help="What says who the group is, see `pluralllm prepare`. Default: names."),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(help="Directory of the model, where the questionnaire does not name a hub's."),
    ] = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    map_: MapOption = None,
    weight: WeightOption = None,
    by: ByOption = None,
    min_respondents: FewestOption = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Table of published shares to compare: question_id or question, option, share."
        ),
    ] = None,
) -> None:
    """Write a group's site, on the group's own machine from its own file.

    The answers are checked against the questionnaire: they may lack questions, but have none that
    it does not have. A site that is cut out of the prepared survey of this questionnaire has the
    same bytes.

    Examples:

      pluralllm site create questions --group North --file answers.csv --out site

      pluralllm site create questions --group Ghana --file x.sav --map x.toml --out site

      pluralllm site create data/globalopinionqa --group Nigeria --out sites/nigeria
    """
    need("survey", "`pluralllm site`")
    console = Terminal()
    with starting(console):
        from pluralllm_app.survey.prepared import PreparedSurvey
        from pluralllm_app.survey.site import write_site

    stated = Stated(
        encoding, decimal, map=map_, weight=weight, by=by, min_respondents=min_respondents
    )
    if file is None:
        given = {
            "--role": role,
            "--descriptions": descriptions,
            "--embedder": embedder,
            "--encoding": encoding,
            "--decimal": decimal,
            "--map": map_,
            "--weight": weight,
            "--by": by,
            "--min-respondents": min_respondents,
            "--check": check,
        }
        for option, value in given.items():
            if value is not None:
                raise typer.BadParameter(f"{option} belongs to --file: leave it out, or give both")
        site = write_site(PreparedSurvey.open(questionnaire), group, out)
    else:
        if role not in (None, *ROLES):
            raise typer.BadParameter(f"--role is {' or '.join(ROLES)}, not {role!r}")
        from pluralllm_app.survey.make_site import site_of

        site = site_of(
            PreparedSurvey.open(questionnaire),
            group,
            out,
            file=file,
            role=role or ROLES[0],
            descriptions=descriptions or "names",
            embedder=embedder,
            stated=stated,
            check=check,
            console=console,
        )
    _say(site, console)


@site_app.command("check")
def check_command(
    site: Annotated[Path, typer.Argument(help="Directory of the site.")],
) -> None:
    """Check that a site is whole and as it was written, for example after it was copied.

    Example:

      pluralllm site check sites/nigeria
    """
    need("survey", "`pluralllm site`")
    from pluralllm_app.survey.site import Site

    _say(Site.open(site), Terminal())


def _say(site: "Site", console: Console) -> None:
    questions = site.survey.group(site.group).questions
    console.print(
        f"{site.survey.path}: the site of group {site.group!r}, {many(questions, 'question')} of "
        f"{site.survey.name}, every file as it was written",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
