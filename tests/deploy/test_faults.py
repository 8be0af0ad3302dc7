"""Faults of a federation of real processes, one after the other in the same one: `make faults`.

An exchange of messages takes seconds and a run's start some more. So where a run survives a fault,
or is resumed, it goes through all repeats of that fault.
"""

import contextlib
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pluralllm_app.federation.state import RunState
from pluralllm_app.records.writer import STATE
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY, TRAIN
from tests.deploy.conftest import Note
from tests.support.deployment import model_weights
from tests.support.federation import WAITS, Federation, Run
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.fault

ALDER, BIRCH, CEDAR = TRAIN
# Evaluated before the first round and after the last; every round leaves a checkpoint.
CONFIG: dict[str, Scalar] = TINY | {
    "evaluate-every": 100,
    "expected-nodes": 3,
    "start-timeout": 300.0,
    "round-timeout": 300.0,
}


@pytest.fixture(scope="module")
def deployment(
    tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    path = tmp_path_factory.mktemp("faults") / "there"
    with Federation(path, tiny_survey) as deployment:
        deployment.start_superlink()
        deployment.register()
        yield deployment


@pytest.fixture
def federation(deployment: Federation) -> Federation:
    """The federation with all its nodes online and no fault planned."""
    for group in TRAIN:
        deployment.plan(group, {})
        for begun in deployment.node_dir(group).glob("fault-*"):
            begun.unlink()
        if not deployment.processes(group):
            deployment.start_node(group)
    deployment.wait_online(3)
    return deployment


@pytest.mark.usefixtures("repeat")
def test_runs_before_nodes(federation: Federation, tmp_path: Path, note: Note) -> None:
    for group in TRAIN:
        federation.end_node(group, signal.SIGTERM)
    federation.kill(federation.superlink, signal.SIGTERM)
    federation.start_node(ALDER)
    time.sleep(5)
    federation.start_superlink()
    federation.wait_online(1)
    config = CONFIG | {"rounds": 1}
    runs = {f"{tmp_path.name}-{name}": Run(tmp_path / name) for name in ("a", "b")}
    submitted = {
        name: federation.submit(config | {"out": str(run.path)}, name) for name, run in runs.items()
    }
    for name in runs:
        wait_until(lambda name=name: "1 of 3 nodes are connected" in federation.log(name))
    first, refused = next(iter(runs.values())), f"{tmp_path.name}-refused"
    federation.submit(config | {"out": str(first.path)}, refused).wait(PATIENCE)
    assert "another process writes the run in" in federation.log(refused)
    start = time.time()
    for group in (BIRCH, CEDAR):
        federation.start_node(group)
    for name, run in runs.items():
        submitted[name].wait(PATIENCE)
        run.check(federation.log(name))
        assert not any(map(run.missed, TRAIN))
    assert len({model_weights(run.path) for run in runs.values()}) == 1
    lost = max(run.lost() for run in runs.values())
    title = "a node before the SuperLink, runs before the other nodes"
    note(title, "waits, completes", lost=lost, missed=0, seconds=first.ended(1) - start)
    note("two runs at once", "both complete, same weights", lost=lost, missed=0)
    note("a second run into the same directory", "refused, the first goes on", lost=first.lost())


NOT_FINITE = "refused: its weights are not all finite"
# Who sends what in which round of a cycle, and what is recorded of it. The rounds before and after
# those that wait for a timeout have no faults, whose seconds would then be those of the timeout.
REPLIES = (
    (ALDER, 1, "other records", "refused: it is not an update"),
    (BIRCH, 2, "other bytes", "refused: its arrays are not in safetensors' format"),
    (CEDAR, 2, "NaN", NOT_FINITE),
    (ALDER, 3, "infinite", NOT_FINITE),
    (BIRCH, 4, "too short", "refused: its weights are float32 (617,), not float32 (618,)"),
    (CEDAR, 4, "other count", "refused: it claims 1000000 train questions, the roster has 18"),
    (ALDER, 6, "wait", "no reply within 45 s"),
    (BIRCH, 6, "die", "no reply within 45 s"),
)
CYCLE = 7
SCORES = (CEDAR, 1, "fewer scores")


def test_replies(federation: Federation, repeats: int, tmp_path: Path, note: Note) -> None:
    befores = range(0, CYCLE * repeats, CYCLE)
    for group in TRAIN:
        own = [(n, fault) for name, n, fault, *_ in (SCORES, *REPLIES) if name == group]
        federation.plan(group, {before + n: fault for before in befores for n, fault in own})
    run, name = Run(tmp_path / "run"), tmp_path.name
    config = CONFIG | {"rounds": CYCLE * repeats + 1, "evaluate-every": CYCLE}
    config |= {"min-train-groups": 1, "round-timeout": 45.0, "out": str(run.path)}
    submitted = federation.submit(config, name)
    began = {}
    for before in befores:
        number = before + 6
        federation.wait_begun(ALDER, number, submitted)
        waits = federation.begun(ALDER, number)
        began[waits] = waits.stat().st_mtime
        wait_until(lambda last=number: run.last >= last or submitted.poll() is not None)
        waits.unlink()
    submitted.wait(PATIENCE)
    run.check(federation.log(name))

    titles = {"wait": "no reply", "die": "an app's process killed"}
    for before in befores:
        # The scores that come with an update are of the weights before it.
        scores = run.reasons(CEDAR, "evaluate")[before]
        assert scores == "refused: its scores do not match its questions"
        assert before + 1 not in run.missed(CEDAR)
        note(f"reply: {SCORES[2]}", "scores refused, update counts", lost=run.lost(), missed=0)
        for group, each, fault, reason in REPLIES:
            number = before + each
            assert run.reasons(group)[number].startswith(reason)
            begun = federation.begun(group, number)
            start = began[begun] if begun in began else begun.stat().st_mtime
            missed, seconds = run.recovery(group, number, start)
            # A SuperNode notices after 60 s that its app's process has died, and then goes on.
            assert missed == 1 or (fault == "die" and missed == 2)
            title = titles.get(fault, f"reply: {fault}")
            outcome = reason.split(":")[0].replace("45 s", "round-timeout")
            note(title, outcome, lost=run.lost(), missed=missed, seconds=seconds)


@pytest.mark.usefixtures("repeat")
def test_killed_nodes(federation: Federation, tmp_path: Path, note: Note) -> None:
    """Two nodes are killed in a run, and another run begins before the loss of one is known."""
    run, later = Run(tmp_path / "run"), Run(tmp_path / "later")
    name, second = tmp_path.name, f"{tmp_path.name}-later"
    config = CONFIG | {"min-train-groups": 1}
    federation.plan(CEDAR, {1: "wait"})
    federation.plan(ALDER, {2: "wait"})
    earlier = federation.sent(BIRCH)
    submitted = federation.submit(config | {"rounds": 4, "out": str(run.path)}, name)
    federation.wait_begun(CEDAR, 1, submitted)
    wait_until(lambda: federation.sent(BIRCH) == earlier + 2)  # its group, its update
    killed = {BIRCH: time.time()}
    federation.end_node(BIRCH)
    waiting = federation.submit(config | {"rounds": 1, "out": str(later.path)}, second)
    wait_until((later.path / "run.json").exists)
    assert federation.online() == 3  # so all are asked for their groups
    federation.release(CEDAR, 1, {3: "wait"})
    federation.wait_begun(ALDER, 2, submitted)
    killed[ALDER] = time.time()
    federation.end_node(ALDER)
    federation.plan(ALDER, {})
    before = {group: federation.let_in(group) for group in killed}
    waited = federation.log(federation.slugs[ALDER]).count(WAITS)
    early = federation.start_node(ALDER)
    wait_until(lambda: federation.log(federation.slugs[ALDER]).count(WAITS) > waited)
    federation.start_node(BIRCH)
    for group in killed:
        wait_until(lambda group=group: federation.let_in(group) > before[group])
    assert early.poll() is None
    # CEDAR waited for them: the next round begins with all.
    federation.wait_begun(CEDAR, 3, submitted)
    federation.release(CEDAR, 3, {})
    for process, each, log in ((submitted, run, name), (waiting, later, second)):
        process.wait(PATIENCE)
        each.check(federation.log(log))
    note("a killed node started again at once", "waits, counts again", lost=run.lost())
    assert run.missed(CEDAR) == []
    for group, fault in (
        (BIRCH, "a node killed after its reply, before the next round"),
        (ALDER, "a node killed while it trains"),
    ):
        # The round in flight, and the one that begins without the node. Who had not yet got its
        # message may be back in time.
        assert run.missed(group) in ([2], [2, 3], *([[]] if group == BIRCH else []))
        for number in run.missed(group):
            # Flower's word for a node that is away, ours for one that has been.
            assert re.match("Error: Node Unavailable|went away", run.reasons(group)[number])
        missed, seconds = run.recovery(group, 2, killed[group])
        note(fault, "counts again", lost=run.lost(), missed=missed, seconds=seconds)
    assert later.missed(BIRCH) == []
    seconds = later.ended(1) - killed[BIRCH]
    title = "a node killed before a run, while it still counts as online"
    note(title, "waited for, counts", lost=later.lost(), missed=0, seconds=seconds)


def test_killed_superlink(federation: Federation, repeats: int, tmp_path: Path, note: Note) -> None:
    run, name = Run(tmp_path / "run"), tmp_path.name
    config = CONFIG | {"rounds": repeats + 2, "client-optimizer-state": "keep"}
    target = {"out": str(run.path)}
    killed, lost = {}, {}
    for number in range(2, repeats + 2):
        federation.plan(CEDAR, {number: "wait"})
        submitted = federation.submit(config | target, f"{name}-{number}")
        federation.wait_begun(CEDAR, number, submitted)
        killed[number] = time.time()
        federation.kill(federation.superlink)
        federation.release(CEDAR, number, {})
        submitted.wait(PATIENCE)
        federation.start_superlink()
        federation.wait_online(3)
        # The ServerApp may outlive its SuperLink for some seconds.
        wait_until(run.is_free)
        lost[number] = number - run.last
        own = RunState.load(run.path / STATE).experiment
        target = {"resume-from": str(run.path)}
    command = ["pluralllm", "deploy", "run", federation.dir, "--resume", run.path]
    status = federation.start(f"{name}-last", command).wait(PATIENCE)
    assert status == 0, federation.log(f"{name}-last")
    run.check(federation.log(f"{name}-last"))
    assert run.lost() == 0
    for group in TRAIN:  # of one experiment a node keeps its last rounds, which are those to come
        shutil.rmtree(federation.node_dir(group) / "site" / "memory")
    assert model_weights(run.path) == federation.weights_without(config, tmp_path / "whole", own)
    for number in killed:
        seconds = run.ended(number) - killed[number]
        outcome = "resumed, same weights"
        note("the SuperLink killed while a round runs", outcome, lost=lost[number], seconds=seconds)


def test_full_disk(federation: Federation, repeats: int, tmp_path: Path, note: Note) -> None:
    if not federation.alone:
        pytest.skip("no file system of a test's own may be mounted here")
    there = Path(f"/proc/{federation.superlink.pid}/root{federation.small}")
    run, name = Run(there / "run"), tmp_path.name
    # Weights that are larger than what is left on the disk.
    config = CONFIG | {"rounds": repeats + 1, "d-model": 32, "dim-feedforward": 64, "num-layers": 2}
    own = str(federation.small / "run")
    target = {"out": own}
    filled, lost = {}, {}
    for number in range(2, repeats + 2):
        federation.plan(CEDAR, {number: "wait"})
        submitted = federation.submit(config | target, f"{name}-{number}")
        federation.wait_begun(CEDAR, number, submitted)
        filled[number] = time.time()
        fill(there / "ballast", leave=40_000)
        federation.release(CEDAR, number, {})
        submitted.wait(PATIENCE)
        assert run.fields["status"] == "failed"
        assert re.search("cannot write .*No space left on device", run.fields["error"])
        lost[number] = number - run.last
        (there / "ballast").unlink()
        target = {"resume-from": own}
    federation.submit(config | target, f"{name}-last").wait(PATIENCE)
    run.check(federation.log(f"{name}-last"))
    assert run.lost() == 0
    assert model_weights(run.path) == federation.weights_without(config, tmp_path / "whole")
    for number in filled:
        outcome, seconds = "says so; resumed, same weights", run.ended(number) - filled[number]
        note("the server's disk full", outcome, lost=lost[number], seconds=seconds)


def fill(ballast: Path, leave: int) -> None:
    """Fill a file system with a file until so many bytes are left."""
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - leave)
