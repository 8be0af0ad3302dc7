"""What somebody without a key can do to a SuperLink while a run goes on, on real processes.

The attacks follow one another while the nodes work at one run, and the next one where it has ended:
whole rounds have to pass under each attack, and every run has to complete.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pluralllm_app.core.wording import many
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.attacks.conftest import Row
from tests.conftest import TINY, TRAIN
from tests.support import strangers
from tests.support.deployment import Deployment, Process
from tests.support.strangers import Attack, Say
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.attack

MOST_MIB = 400
"""What the SuperLink's process may take in the end; without an attack it is half of that."""
ROUNDS = 2
"""Lines of a run's record that each attack has to see; the work on the second falls into it."""
CONFIG: dict[str, Scalar] = TINY | {
    "expected-nodes": 3,
    "start-timeout": PATIENCE,
    "round-timeout": PATIENCE,
}


@dataclass(frozen=True)
class Try:
    """An attack, and what it did once."""

    title: str
    before: str
    connections: int
    talk: Callable[[Say], Awaitable[None]]
    answer: str
    """What the SuperLink does with each connection."""
    tls: bool = True


LOCKED = "178 lock everybody out"
HELD = "each held as long as the caller likes"
TRIES = (
    # The first run begins under the first of these.
    Try("300 connections that begin TLS", LOCKED, 300, strangers.one_byte, "cut", tls=False),
    Try("none: rounds alone", "-", 0, strangers.idle, "nothing"),
    Try(
        "149 MB of body in tiny chunks",
        "2.4 GB of memory",
        4,
        strangers.tiny_chunks,
        "411",
    ),
    Try("1 GB of body on one connection", "1 GB held", 1, strangers.large_body, "401"),
    Try("300 idle connections", LOCKED, 300, strangers.idle, "nothing", tls=False),
    Try("200 idle connections after TLS", HELD, 200, strangers.idle, "cut"),
    Try("100 connections with slow headers", HELD, 100, strangers.slow_headers, "cut"),
    Try("headers without end", "kept in memory", 4, strangers.long_headers, "400"),
    Try("100 connections with slow bodies", HELD, 100, strangers.slow_body, "cut"),
    Try(
        "149 MB of body to the Control API",
        "as from a node",
        1,
        partial(strangers.tiny_chunks, path=strangers.START),
        "411",
    ),
)


class Runs:
    """Keeps a run going at a deployment, and counts what all of them recorded."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.names: list[str] = []
        self._last: Process | None = None

    def go_on(self, rounds: int) -> None:
        """Begin a run of so many rounds where none goes on."""
        if self._last is None or self._last.poll() is not None:
            self.finish()
            self.names.append(f"run-{len(self.names)}")
            config = CONFIG | {"rounds": rounds}
            self._last = self.deployment.deploy_run(self.names[-1], config)

    def recorded(self) -> int:
        """How many rounds were recorded so far."""
        files = (self.deployment.run_dir(name) / "rounds.jsonl" for name in self.names)
        return sum(len(file.read_bytes().splitlines()) for file in files if file.exists())

    def finish(self) -> None:
        """Wait for the end of the last run, which has to complete."""
        if self._last is None:
            return
        name = self.names[-1]
        assert self._last.wait(PATIENCE) == 0, self.deployment.log(name)
        record = json.loads((self.deployment.run_dir(name) / "run.json").read_text())
        assert record["status"] == "completed"


@pytest.fixture(scope="module")
def runs(tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    path = tmp_path_factory.mktemp("strangers") / "there"
    with Deployment(path, tiny_survey, TRAIN) as deployment:
        nodes = deployment.start_all()
        runs = Runs(deployment)
        yield runs
        runs.finish()
        assert all(node.poll() is None for node in nodes)


def peak_mib(process: Process) -> int:
    """The most memory that a process had since it was last asked, in MiB."""
    here = Path(f"/proc/{process.pid}")
    [peak] = [line for line in (here / "status").read_text().splitlines() if "VmHWM" in line]
    (here / "clear_refs").write_text("5")
    return int(peak.split()[1]) // 1024


@pytest.mark.parametrize("each", TRIES, ids=lambda each: each.title)
def test_rounds_go_on_while(each: Try, runs: Runs, row: Row) -> None:
    superlink = runs.deployment.superlink
    left = (len(TRIES) - TRIES.index(each)) * ROUNDS
    peak_mib(superlink)
    attack = Attack(runs.deployment.port, each.connections, each.talk, tls=each.tls)
    with attack:
        wait_until(lambda: attack.begun >= each.connections)
        enough = runs.recorded() + ROUNDS

        def seen() -> bool:
            runs.go_on(left)
            return runs.recorded() >= enough

        wait_until(seen)
        if each.answer != "nothing":
            wait_until(lambda: sum(attack.answers.values()) >= each.connections)
    assert set(attack.answers) <= {each.answer, "cut"}, attack.answers
    peak = peak_mib(superlink)
    assert peak < MOST_MIB
    after = f"{each.answer}: the run goes on, the SuperLink takes {peak} MiB at most"
    row(each.title, before=each.before, after=after)


def test_every_run_completed(runs: Runs, row: Row) -> None:
    runs.finish()
    row(
        "all that is above, of somebody without a key",
        before="-",
        after=f"{many(len(runs.names), 'run')} completed, with {many(runs.recorded(), 'round')}",
    )
