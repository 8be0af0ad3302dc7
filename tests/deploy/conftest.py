"""What `make faults` adds: repeats, and a table of the faults at the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import pytest


@dataclass(frozen=True)
class Outcome:
    """What became of one fault: rounds of the group, or of the run, that it cost, and seconds."""

    fault: str
    outcome: str
    lost: int | None
    seconds: (
        float | None
    )  # from the fault to the end of the round, or of the run, that has it again


class Note(Protocol):
    """Keep an outcome for the table."""

    def __call__(
        self, fault: str, outcome: str, lost: int | None = None, seconds: float | None = None
    ) -> None: ...


OUTCOMES = pytest.StashKey[list[Outcome]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-repeats", type=int, default=1, help="times that each fault is tried")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repeat" in metafunc.fixturenames:
        times = metafunc.config.getoption("fault_repeats", 1)
        metafunc.parametrize("repeat", range(times), scope="session")


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Note:
    """Keeps the outcome of a fault for the table at the end."""
    outcomes = pytestconfig.stash.setdefault(OUTCOMES, [])

    def keep(
        fault: str, outcome: str, lost: int | None = None, seconds: float | None = None
    ) -> None:
        outcomes.append(Outcome(fault, outcome, lost, seconds))

    return keep


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    outcomes = config.stash.get(OUTCOMES, [])
    if not outcomes:
        return
    head = ("fault", "runs", "outcome", "rounds lost (max)", "seconds to recover (median, max)")
    rows = [head, *_rows(outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("faults")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for fault, outcome in dict.fromkeys((one.fault, one.outcome) for one in outcomes):
        same = [one for one in outcomes if (one.fault, one.outcome) == (fault, outcome)]
        lost = [one.lost for one in same if one.lost is not None]
        seconds = [one.seconds for one in same if one.seconds is not None]
        yield (
            fault,
            str(len(same)),
            outcome,
            str(max(lost)) if lost else "-",
            f"{median(seconds):.0f}, {max(seconds):.0f}" if seconds else "-",
        )
