"""Faults of a federation of real processes, one after the other in the same one: `make faults`."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from pluralllm_app.federation.state import RunState
from pluralllm_app.record import STATE
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY, TRAIN
from tests.deploy.conftest import Note
from tests.support import faulty_client
from tests.support.deployment import Deployment, model_weights, wait_until

pytestmark = pytest.mark.fault

ALDER, BIRCH, CEDAR = TRAIN
SENT = "Sent successfully"  # what a SuperNode prints after each reply
# Evaluated before the first round and after the last; every round leaves a checkpoint.
CONFIG: dict[str, Scalar] = TINY | {
    "evaluate-every": 100,
    "expected-nodes": 3,
    "start-timeout": 120.0,
    "round-timeout": 300.0,
}


class Federation(Deployment):
    """A deployment of the train groups whose nodes can misbehave."""

    def __init__(self, path: Path, survey: PreparedSurvey) -> None:
        super().__init__(path, survey, TRAIN)
        shutil.copy(faulty_client.__file__, self.path / "app" / "pluralllm_app")
        project = self.path / "app" / "pyproject.toml"
        text = project.read_text("utf-8")
        project.write_text(text.replace(".client_app:app", ".faulty_client:app"), "utf-8")

    def plan(self, group: str, faults: dict[int, str]) -> None:
        """Say which fault a group's node has in which round."""
        (self.node_dir(group) / "faults.json").write_text(json.dumps(faults), "utf-8")

    def begun(self, group: str, number: int) -> Path:
        """The file that a node leaves when the fault of a round begins."""
        return self.node_dir(group) / f"fault-{number}"


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
def federation(deployment: Federation, repeat: int) -> Federation:
    """The federation with all its nodes online and no fault planned."""
    for group in TRAIN:
        deployment.plan(group, {})
        for begun in deployment.node_dir(group).glob("fault-*"):
            begun.unlink()
        if not deployment.processes(group):
            deployment.start_node(group)
    deployment.wait_online(3, timeout=120)
    return deployment


@dataclass
class Run:
    """A run directory, read while the run goes on or afterwards."""

    path: Path

    @property
    def fields(self) -> dict[str, Any]:
        """run.json."""
        fields: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        return fields

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """rounds.jsonl."""
        lines = (self.path / "rounds.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def last(self) -> int:
        """The last round whose state is kept; -1 before the first."""
        return RunState.load(file).round if (file := self.path / STATE).exists() else -1

    def ended(self, number: int) -> float:
        """When a round ended."""
        name = f"checkpoints/round-{number:04d}/model.safetensors"
        return (self.path / name).stat().st_mtime

    def missed(self, group: str) -> list[int]:
        """The rounds in which a group did not count."""
        return [one["round"] for one in self.rounds[1:] if group not in one["train"]["groups"]]

    def reasons(self, group: str) -> dict[int, str]:
        """Why a group failed, by round."""
        failures = [(one["round"], failure) for one in self.rounds for failure in one["failures"]]
        return {number: each["reason"] for number, each in failures if each["group"] == group}

    def recovery(self, group: str, number: int, since: float) -> tuple[int, float]:
        """The rounds that a group missed from one on, and the seconds until it counted again."""
        missed = self.missed(group)
        again = next(n for n in range(number, len(self.rounds)) if n not in missed)
        return again - number, self.ended(again) - since

    def check(self, log: str) -> None:
        """Check that the run is completed."""
        assert self.fields["status"] == "completed", (self.fields["error"], log)


def test_started_in_any_order(federation: Federation, tmp_path: Path, note: Note) -> None:
    for group in TRAIN:
        federation.end_node(group, SIGTERM)
    federation.kill(federation.superlink, SIGTERM)
    federation.start_node(ALDER)
    time.sleep(5)
    federation.start_superlink()
    federation.wait_online(1)
    run, name = Run(tmp_path / "run"), tmp_path.name
    submitted = federation.submit(CONFIG | {"rounds": 1, "out": str(run.path)}, name)
    wait_until(lambda: "1 of 3 nodes are connected" in federation.log(name))
    start = time.time()
    for group in (BIRCH, CEDAR):
        federation.start_node(group)
    submitted.wait(200)
    run.check(federation.log(name))
    assert not any(map(run.missed, TRAIN))
    note("node before SuperLink, run before nodes", "waits, completes", 0, run.ended(1) - start)


def test_two_runs_at_once(federation: Federation, tmp_path: Path, note: Note) -> None:
    runs = {name: Run(tmp_path / name) for name in ("a", "b")}
    config = CONFIG | {"rounds": 1}
    submitted = {
        name: federation.submit(config | {"out": str(run.path)}, f"{tmp_path.name}-{name}")
        for name, run in runs.items()
    }
    wait_until(lambda: all((run.path / "run.json").exists() for run in runs.values()), 120)
    second = f"{tmp_path.name}-second"
    federation.submit(config | {"out": str(runs["a"].path)}, second).wait(200)
    assert "another process writes the run in" in federation.log(second)
    note("a second run into the same directory", "refused, the first goes on")
    for name, run in runs.items():
        submitted[name].wait(200)
        run.check(federation.log(f"{tmp_path.name}-{name}"))
    assert len({model_weights(run.path) for run in runs.values()}) == 1
    note("two runs at once", "both complete, same weights", 0)


NOT_FINITE = "refused: its weights are not all finite"
# Who sends what in which round, and what is recorded of it.
REPLIES = (
    (ALDER, 1, "other records", "refused: it is not an update"),
    (BIRCH, 1, "other bytes", "refused: its weights are not in numpy's format 1.0"),
    (CEDAR, 2, "NaN", NOT_FINITE),
    (ALDER, 3, "infinite", NOT_FINITE),
    (BIRCH, 3, "too short", "refused: its weights are float32 (1153,), not float32 (1154,)"),
    (CEDAR, 4, "other count", "refused: it claims 1000000 train questions, the roster has 18"),
    (ALDER, 5, "wait", "no reply within 45 s"),
    (BIRCH, 5, "die", "no reply within 45 s"),
)


def test_replies(federation: Federation, tmp_path: Path, note: Note) -> None:
    scores = (CEDAR, 1, "fewer scores")
    for group in TRAIN:
        faults = [scores, *(each[:3] for each in REPLIES)]
        federation.plan(group, {number: fault for own, number, fault in faults if own == group})
    run, name = Run(tmp_path / "run"), tmp_path.name
    own = {"rounds": 7, "min-train-groups": 1, "round-timeout": 45.0}
    submitted = federation.submit(CONFIG | own | {"out": str(run.path)}, name)
    wait_until(lambda: run.last >= 5 or submitted.poll() is not None, 600)
    began = [federation.begun(*each[:2]).stat().st_mtime for each in REPLIES]
    federation.begun(ALDER, 5).unlink()
    submitted.wait(300)
    run.check(federation.log(name))

    # The scores that come with the first update are of the weights before it.
    assert run.reasons(CEDAR)[0] == "refused: its scores do not match its questions"
    note(f"reply: {scores[2]}", "scores refused, update counts", 0)
    titles = {"wait": "no reply", "die": "app process killed"}
    for (group, number, fault, reason), start in zip(REPLIES, began, strict=True):
        assert run.reasons(group)[number].startswith(reason)
        lost, seconds = run.recovery(group, number, start)
        # A SuperNode notices after 60 s that its app's process has died, and then goes on.
        assert lost == 1 or (fault == "die" and lost == 2)
        title = titles.get(fault, f"reply: {fault}")
        note(title, reason.split(":")[0].replace("45 s", "round-timeout"), lost, seconds)
    assert [run.missed(group)[:3] for group in TRAIN] == [[1, 3, 5], [1, 3, 5], [2, 4]]


def test_killed_nodes(federation: Federation, tmp_path: Path, note: Note) -> None:
    federation.plan(CEDAR, {2: "wait"})
    federation.plan(ALDER, {3: "wait"})
    run, name, slug = Run(tmp_path / "run"), tmp_path.name, federation.slugs[BIRCH]
    earlier = federation.log(slug).count(SENT)
    config = CONFIG | {"rounds": 7, "min-train-groups": 1, "out": str(run.path)}
    submitted = federation.submit(config, name)
    wait_until(federation.begun(CEDAR, 2).exists, 200)
    # Its group, and the updates of two rounds.
    wait_until(lambda: federation.log(slug).count(SENT) == earlier + 3, 120)
    killed = {BIRCH: time.time()}
    federation.end_node(BIRCH)
    federation.begun(CEDAR, 2).unlink()
    wait_until(federation.begun(ALDER, 3).exists, 120)
    killed[ALDER] = time.time()
    federation.end_node(ALDER)
    early = federation.start_node(ALDER)
    assert early.wait(60) == 1
    assert "Failed to activate" in federation.log(federation.slugs[ALDER])
    note("killed node started again at once", "refused")
    federation.wait_online(1, timeout=120)
    for group in killed:
        federation.start_node(group)
    federation.wait_online(3)
    back = time.time()
    submitted.wait(400)
    run.check(federation.log(name))
    assert run.missed(CEDAR) == []
    for group, fault in (
        (BIRCH, "node killed after a reply, before the next round"),
        (ALDER, "node killed while it trains"),
    ):
        for number in (missed := run.missed(group)):
            assert run.reasons(group)[number].startswith("Error: Node Unavailable")
        # The round in flight, and those that began without the node.
        assert missed == list(range(3, 3 + len(missed)))
        assert all(run.ended(number - 1) < back for number in missed)
        note(fault, "counts again", *run.recovery(group, 3, killed[group]))


def test_killed_superlink(federation: Federation, tmp_path: Path, note: Note) -> None:
    federation.plan(CEDAR, {3: "wait"})
    run, name = Run(tmp_path / "run"), tmp_path.name
    config = CONFIG | {"rounds": 4, "client-optimizer-state": "keep"}
    submitted = federation.submit(config | {"out": str(run.path)}, name)
    wait_until(federation.begun(CEDAR, 3).exists, 200)
    start = time.time()
    federation.kill(federation.superlink)
    federation.plan(CEDAR, {})
    federation.begun(CEDAR, 3).unlink()
    submitted.wait(60)
    federation.start_superlink()
    federation.wait_online(3, timeout=120)
    federation.submit(config | {"resume-from": str(run.path)}, f"{name}-again").wait(300)
    log = federation.log(f"{name}-again")
    run.check(log)
    assert "going on after round 2" in log
    assert model_weights(run.path) == federation.weights_without(config, tmp_path / "whole")
    note("SuperLink killed while a round runs", "resumed, same weights", 1, time.time() - start)


def test_full_disk(federation: Federation, tmp_path: Path, note: Note) -> None:
    # A file system of its own, which the server's processes alone see.
    small = tmp_path / "small"
    small.mkdir()
    alone = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mounted = [*alone, 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(small)]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"]).returncode:
        pytest.skip("no file system of a test's own may be mounted here")
    federation.kill(federation.superlink, SIGTERM)
    federation.start_superlink(mounted)
    federation.wait_online(3, timeout=120)
    federation.plan(CEDAR, {2: "wait"})
    there = Path(f"/proc/{federation.superlink.pid}/root{small}")
    run, name = Run(there / "run"), tmp_path.name
    # Weights that are larger than what is left on the disk.
    config = CONFIG | {"rounds": 3, "d-model": 32, "dim-feedforward": 64}
    submitted = federation.submit(config | {"out": str(small / "run")}, name)
    wait_until(federation.begun(CEDAR, 2).exists, 200)
    start = time.time()
    fill(there / "ballast", leave=40_000)
    federation.plan(CEDAR, {})
    federation.begun(CEDAR, 2).unlink()
    submitted.wait(200)
    assert run.fields["status"] == "failed"
    assert re.search("cannot write .*No space left on device", run.fields["error"])
    assert run.last == 1
    (there / "ballast").unlink()
    federation.submit(config | {"resume-from": str(small / "run")}, f"{name}-again").wait(300)
    run.check(federation.log(f"{name}-again"))
    assert model_weights(run.path) == federation.weights_without(config, tmp_path / "whole")
    note("server's disk full", "says so; resumed, same weights", 1, time.time() - start)


def fill(ballast: Path, leave: int) -> None:
    """Fill a file system with a file until so many bytes are left."""
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - leave)
