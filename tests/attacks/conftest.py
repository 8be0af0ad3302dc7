"""What `make attacks` adds: a table at the end, of each attack before and after it was met."""

from pathlib import Path
from typing import Protocol

import pytest

from tests.support.markdown import table


class Row(Protocol):
    """Keep a row of the table: what the attack is, what it did once, what it did just now."""

    def __call__(self, attack: str, *, before: str, after: str) -> None: ...


ROWS = pytest.StashKey[list[tuple[str, str, str]]]()
HEAD = ("attack", "before", "after")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attack-table", type=Path, help="file to write the table of attacks to")


@pytest.fixture
def row(pytestconfig: pytest.Config) -> Row:
    """Keeps a row for the table at the end. Called once the test has seen what it says."""
    rows = pytestconfig.stash.setdefault(ROWS, [])

    def keep(attack: str, *, before: str, after: str) -> None:
        rows.append((attack, before, after))

    return keep


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    lines = list(table(HEAD, rows))
    terminalreporter.section("attacks")
    for line in lines:
        terminalreporter.write_line(line)
    if file := config.getoption("attack_table"):
        file.write_text("\n".join(lines) + "\n", "utf-8")
