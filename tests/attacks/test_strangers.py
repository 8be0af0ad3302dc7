"""What somebody without a key can do to a SuperLink while a run goes on, on real processes."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

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
CONFIG: dict[str, Scalar] = TINY | {
    "rounds": 1,
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
    Try("none: a run alone", "-", 0, strangers.idle, "nothing"),
    Try(
        "149 MB of body in tiny chunks",
        "2.4 GB of memory",
        4,
        strangers.tiny_chunks,
        "411",
    ),
    Try("1 GB of body on one connection", "1 GB held", 1, strangers.large_body, "401"),
    Try("300 idle connections", LOCKED, 300, strangers.idle, "nothing", tls=False),
    Try("300 connections that begin TLS", LOCKED, 300, strangers.one_byte, "cut", tls=False),
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


@pytest.fixture(scope="module")
def deployment(
    tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    path = tmp_path_factory.mktemp("strangers") / "there"
    with Deployment(path, tiny_survey, TRAIN) as deployment:
        nodes = deployment.start_all()
        yield deployment
        assert all(node.poll() is None for node in nodes)


def peak_mib(process: Process) -> int:
    """The most memory that a process had since it was last asked, in MiB."""
    here = Path(f"/proc/{process.pid}")
    [peak] = [line for line in (here / "status").read_text().splitlines() if "VmHWM" in line]
    (here / "clear_refs").write_text("5")
    return int(peak.split()[1]) // 1024


@pytest.mark.parametrize("each", TRIES, ids=lambda each: each.title)
def test_a_run_completes_while(each: Try, deployment: Deployment, tmp_path: Path, row: Row) -> None:
    peak_mib(deployment.superlink)
    attack = Attack(deployment.port, each.connections, each.talk, tls=each.tls)
    out = deployment.run_dir(tmp_path.name)
    with attack:
        wait_until(lambda: attack.begun >= each.connections)
        status = deployment.deploy_run(tmp_path.name, CONFIG).wait(PATIENCE)
        if each.answer != "nothing":
            wait_until(lambda: sum(attack.answers.values()) >= each.connections)
    assert status == 0, deployment.log(tmp_path.name)
    assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert set(attack.answers) <= {each.answer, "cut"}, attack.answers
    peak = peak_mib(deployment.superlink)
    assert peak < MOST_MIB
    after = f"{each.answer}: the run completes, the SuperLink takes {peak} MiB at most"
    row(each.title, before=each.before, after=after)
