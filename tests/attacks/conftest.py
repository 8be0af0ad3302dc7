"""What `make attacks` adds: a table at the end, of each attack before and after it was met."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.markdown import table


class Row(Protocol):
    """Keep a row of the table: what the attack is, what it did once, what it did just now."""

    def __call__(self, attack: str, *, before: str, after: str) -> None: ...


ROW = "row of the table of attacks"
HEAD = ("attack", "before", "after")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attack-table", type=Path, help="file to write the table of attacks to")


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Keeps a row for the table at the end. Called once the test has seen what it says."""
    kept = request.node.user_properties  # these come back from processes that run tests, too

    def keep(attack: str, *, before: str, after: str) -> None:
        kept.append((ROW, [attack, before, after]))

    return keep


def rows(reporter: pytest.TerminalReporter) -> Iterator[list[str]]:
    """All rows, file by file."""
    reports = [
        report
        for kind in reporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    for report in sorted(reports, key=lambda report: report.location[:2]):
        for name, kept in report.user_properties:
            if name == ROW:
                assert isinstance(kept, list)
                yield kept


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = list(rows(terminalreporter))
    if not found:
        return
    lines = list(table(HEAD, found))
    terminalreporter.section("attacks")
    for line in lines:
        terminalreporter.write_line(line)
    if file := config.getoption("attack_table"):
        file.write_text("\n".join(lines) + "\n", "utf-8")
