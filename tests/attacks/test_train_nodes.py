"""A train node that is killed and started again, or whose code lies, on real processes."""

import json
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.attacks.conftest import Row
from tests.conftest import TINY, TRAIN
from tests.support.deployment import Deployment, command, model_weights
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.attack

CONFIG: dict[str, Scalar] = TINY | {
    "rounds": 8,
    "min-train-groups": 3,
    "start-timeout": PATIENCE,
    "round-timeout": PATIENCE,
    "grace-period": PATIENCE,
}


@pytest.fixture(scope="module")
def deployment(
    tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    path = tmp_path_factory.mktemp("train-nodes") / "there"
    with Deployment(path, tiny_survey, TRAIN) as deployment:
        deployment.start_all()
        yield deployment


def test_a_node_killed_and_started_at_once(deployment: Deployment, row: Row) -> None:
    out = deployment.run_dir("restarted")
    process = deployment.deploy_run("restarted", CONFIG)
    rounds = out / "rounds.jsonl"

    def recorded() -> int:
        return len(rounds.read_bytes().splitlines()) if rounds.exists() else 0

    wait_until(lambda: recorded() >= 2 or process.poll() is not None)
    assert recorded() < 8, "the run was over before the node could be killed"
    killed = time.monotonic()
    deployment.end_node("Birch")
    deployment.start_node("Birch")
    assert process.wait(PATIENCE) == 0, deployment.log("restarted")
    seconds = time.monotonic() - killed
    told = deployment.log("restarted")
    assert "the node went away of Birch: waiting" in told.replace("\n", " ")
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "completed"
    assert "waiting" not in record
    for line in rounds.read_text().splitlines():
        assert json.loads(line)["failures"] == []
    config = CONFIG | {"grace-period": 0.0}
    assert model_weights(out) == deployment.weights_without(config, deployment.path / "whole")
    row(
        "a train node killed and started at once, where all are needed",
        before="the run ended: good updates: 2, fewer than min-train-groups = 3",
        after=f"waited for, the round repeated, the weights those of an undisturbed run, bit for "
        f"bit; completed {seconds:.0f} s after the kill",
    )


SENT = "return RecordDict({DESCRIPTION: ConfigRecord(asdict(self))})"
LIES = {"Birch": '{"questions": 2**50, "pool": 2**50}', "Cedar": '{"fingerprint": "f" * 64}'}
"""What each of two attackers has its node say of itself."""


def start_liar(deployment: Deployment, group: str) -> None:
    """Start a group's node anew, with an app that claims what is not so and compares no code."""
    liar = deployment.path / f"liar-{group}"
    shutil.copytree(deployment.path / "app", liar)
    for name, (true, lie) in {
        "own_code.py": ("    if not found:\n        return None\n", "    return None\n"),
        "messages.py": (SENT, SENT.replace("asdict(self)", f"asdict(self) | {LIES[group]}")),
    }.items():
        file = liar / "pluralllm_app" / "federation" / name
        text = file.read_text("utf-8")
        assert text.count(true) == 1
        file.write_text(text.replace(true, lie), "utf-8")
    deployment.end_node(group, signal.SIGTERM)  # a killed one would count as online for a minute
    script = deployment.node_dir(group) / "start.sh"
    deployment.start(f"liar-{group}", [script], {"PYTHONPATH": str(liar)})


def test_nodes_that_lie_of_weight_and_survey(deployment: Deployment, row: Row) -> None:
    for group in LIES:
        start_liar(deployment, group)
    for group in LIES:
        wait_until(lambda group=group: "SuperNode ID" in deployment.log(f"liar-{group}"))
    deployment.wait_online(3)
    settings: dict[str, Scalar] = {"rounds": 1, "min-train-groups": 1, "expected-nodes": 1}
    process = deployment.deploy_run("lies", CONFIG | settings)
    assert process.wait(PATIENCE) == 0, deployment.log("lies")
    record = json.loads((deployment.run_dir("lies") / "run.json").read_text())
    assert set(record["refused"]) == set(LIES)
    assert f"claims {2**50} questions" in record["refused"]["Birch"]
    assert f"has fingerprint {'f' * 64!r}, the server's questi" in record["refused"]["Cedar"]
    status = command("status", deployment.dir).output
    assert "Cedar: refused in the last run: its node has fingerprint" in status
    row(
        "a node claims 2^50 train questions",
        before="owned the model, the others' weights were 5e-13",
        after="refused by name, the run completes with the others",
    )
    row(
        "a node claims another survey than the server's",
        before="ended the run for all",
        after="refused by name, shown by status, the run completes with the others",
    )
