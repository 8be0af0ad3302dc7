"""Deployments for the tests, and what `make faults` adds: repeats, and a table at the end."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Protocol

import pytest

from pluralllm_app.deploy import submit
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey
from tests.support import control_api
from tests.support.control_api import SuperLink
from tests.support.deployment import deployed
from tests.support.markdown import table


@dataclass(frozen=True)
class Outcome:
    """What became of a fault, and what it cost."""

    fault: str
    outcome: str
    lost: int  # rounds of the run that gave no result, or whose work was done again
    missed: int | None  # rounds in which the group did not count
    seconds: float | None  # from the fault to the end of the next round that has all it should


class Note(Protocol):
    """Keep an outcome for the table; no fault may cost the run more than the round in flight."""

    def __call__(
        self,
        fault: str,
        outcome: str,
        *,
        lost: int,
        missed: int | None = None,
        seconds: float | None = None,
    ) -> None: ...


OUTCOMES = pytest.StashKey[list[Outcome]]()
HEAD = (
    "fault",
    "times",
    "outcome",
    "rounds the run lost (max)",
    "rounds the group missed (max)",
    "seconds to recover (median, max)",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-repeats", type=int, default=1, help="times that each fault is tried")
    parser.addoption("--fault-table", type=Path, help="file to write the table of faults to")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(metafunc.config.getoption("fault_repeats", 1)))


@pytest.fixture
def repeats(pytestconfig: pytest.Config) -> int:
    """How many times a test that repeats its faults in one run does so."""
    times: int = pytestconfig.getoption("fault_repeats")
    return times


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Note:
    """Keeps the outcome of a fault for the table at the end."""
    outcomes = pytestconfig.stash.setdefault(OUTCOMES, [])

    def keep(
        fault: str,
        outcome: str,
        *,
        lost: int,
        missed: int | None = None,
        seconds: float | None = None,
    ) -> None:
        assert lost <= 1, (fault, lost)
        outcomes.append(Outcome(fault, outcome, lost, missed, seconds))

    return keep


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    outcomes = config.stash.get(OUTCOMES, [])
    if not outcomes:
        return
    lines = list(table(HEAD, _rows(outcomes)))
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    if file := config.getoption("fault_table"):
        file.write_text("\n".join(lines) + "\n", "utf-8")


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for fault in dict.fromkeys(one.fault for one in outcomes):
        same = [one for one in outcomes if one.fault == fault]
        seconds = [one.seconds for one in same if one.seconds is not None]
        yield (
            fault,
            str(len(same)),
            _outcomes(one.outcome for one in same),
            str(max(one.lost for one in same)),
            str(max((one.missed for one in same if one.missed is not None), default="-")),
            f"{median(seconds):.0f}, {max(seconds):.0f}" if seconds else "-",
        )


def _outcomes(outcomes: Iterable[str]) -> str:
    """The one outcome, or how often there was which."""
    counts = Counter(outcomes)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{outcome} ({times})" for outcome, times in counts.items())


ODD = "Élan 中/.. $(touch /tmp/x); `id` %h \"quoted\" 'twice' \\"
GROUPS = ["Alder", "Birch", ODD]
SERVERS = ["Flower.example.org", "192.0.2.7"]


@pytest.fixture(scope="session")
def odd_survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey of GROUPS."""
    return make_survey(tmp_path_factory.mktemp("odd") / "survey", train=GROUPS, evaluation=[])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, odd_survey: PreparedSurvey) -> Path:
    """A deployment, with the groups' nodes in nodes/."""
    there = tmp_path_factory.mktemp("deploy") / "there"
    return deployed(there, odd_survey, GROUPS, SERVERS)


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    """A SuperLink, which the commands reach."""
    superlink = SuperLink()

    monkeypatch.setattr(submit, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(submit, "PATIENCE_SECONDS", 0.3)
    client = SimpleNamespace(from_server_address=lambda *_, **__: superlink)
    monkeypatch.setattr("flwr.supercore.control.ControlHttpClient", client)
    return superlink


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_survey: PreparedSurvey) -> Path:
    """A deployment whose nodes are in nodes/, to be copied: its keys take a while to make."""
    there = tmp_path_factory.mktemp("template") / "there"
    return deployed(there, tiny_survey, control_api.GROUPS)


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A deployment whose nodes are in nodes/, to be changed."""
    return Path(shutil.copytree(template, tmp_path / "there"))
