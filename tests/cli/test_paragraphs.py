"""Help in terminals that are narrower than the lines of code."""

import typer

from pluralllm_app.cli.paragraphs import join_lines
from tests.support.command import CliRunner


def test_lines_end_where_the_terminal_does_and_not_where_code_did() -> None:
    app, below = typer.Typer(), typer.Typer()

    @below.command("make")
    def make() -> None:
        """Make a site.

        It has the questions of the questionnaire, and the answers of this group alone, and
        it is checked.

        Examples:

          make --file answers.csv
          --out site
        """

    @below.command("check")
    def check() -> None:
        """Check it."""

    app.add_typer(below, name="site")
    join_lines(app)
    said = CliRunner().invoke(app, ["site", "make", "--help"], env={"COLUMNS": "60"}).output
    lines = [line.strip() for line in said.splitlines()]
    assert "It has the questions of the questionnaire, and the answers" in lines
    assert "of this group alone, and it is checked." in lines
    assert "make --file answers.csv --out site" in lines
