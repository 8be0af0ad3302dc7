"""A train node that is killed and started again, or whose code lies, on real processes."""

import json
import shutil
import time
from collections.abc import Iterator

import pytest

from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.attacks.conftest import Row
from tests.conftest import TINY, TRAIN
from tests.support.deployment import Deployment, model_weights
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.attack

CONFIG: dict[str, Scalar] = TINY | {
    "rounds": 4,
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


LIES = {
    "own_code.py": ("    if not found:\n        return None\n", "    return None\n"),
    "messages.py": (
        "return RecordDict({DESCRIPTION: ConfigRecord(asdict(self))})",
        "return RecordDict({DESCRIPTION: ConfigRecord(asdict(self) "
        '| {"questions": 2**50, "pool": 2**50})})',
    ),
}
"""What an attacker changes in the app of its own node, by file of the room `federation`."""


def test_a_node_that_claims_most_of_the_weight(deployment: Deployment, row: Row) -> None:
    liar = deployment.path / "liar"
    shutil.copytree(deployment.path / "app", liar)
    for name, (true, lie) in LIES.items():
        file = liar / "pluralllm_app" / "federation" / name
        text = file.read_text("utf-8")
        assert text.count(true) == 1
        file.write_text(text.replace(true, lie), "utf-8")
    deployment.end_node("Birch")
    script = deployment.node_dir("Birch") / "start.sh"
    deployment.start("liar", [script], {"PYTHONPATH": str(liar)})
    wait_until(lambda: "SuperNode ID" in deployment.log("liar"))
    deployment.wait_online(3)
    settings: dict[str, Scalar] = {"rounds": 1, "min-train-groups": 2, "expected-nodes": 2}
    process = deployment.deploy_run("weight", CONFIG | settings)
    assert process.wait(PATIENCE) == 0, deployment.log("weight")
    record = json.loads((deployment.run_dir("weight") / "run.json").read_text())
    assert list(record["refused"]) == ["Birch"]
    assert f"claims {2**50} questions" in record["refused"]["Birch"]
    row(
        "a node claims 2^50 train questions",
        before="owned the model, the others' weights were 5e-13",
        after="refused by name, the run completes with the others",
    )
