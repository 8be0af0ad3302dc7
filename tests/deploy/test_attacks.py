"""What a member with a key of its own tries against the others, on real processes."""

import json
from collections.abc import Iterator

import pytest

from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY, make_survey
from tests.deploy.test_deployment import command
from tests.support.deployment import Deployment
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.engine

GROUPS = ("Alder", "Birch", "Cedar", "Dogwood")
CONFIG: dict[str, Scalar] = TINY | {"start-timeout": PATIENCE, "round-timeout": PATIENCE}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    path = tmp_path_factory.mktemp("survey") / "tiny"
    return make_survey(path, train=GROUPS[:3], evaluation=GROUPS[3:])


@pytest.fixture(scope="module")
def deployment(
    survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """All nodes are online. Alder's and Birch's have each other's key; Dogwood is said to train."""
    path = tmp_path_factory.mktemp("deployment") / "there"
    with Deployment(path, survey, GROUPS) as deployment:
        alder, birch = (deployment.node_dir(group) / "node.key" for group in GROUPS[:2])
        mine, other = alder.read_bytes(), birch.read_bytes()
        alder.write_bytes(other)
        birch.write_bytes(mine)
        deployment.start_superlink()
        deployment.register()
        for group in GROUPS:
            deployment.start_node(group)
        deployment.wait_online(4)
        yield deployment


def run(deployment: Deployment, name: str, settings: dict[str, Scalar]) -> int:
    """Submit a run to its end; returns the exit status."""
    overrides = " ".join(f"{key}={value}" for key, value in (CONFIG | settings).items())
    out = deployment.dir / "server" / "runs" / name
    submit = ["pluralllm", "deploy", "run", deployment.dir, "--out", out, "-c", overrides]
    return deployment.start(name, submit).wait(PATIENCE)


def test_swapped_keys_are_refused_by_name_and_shown(deployment: Deployment) -> None:
    assert run(deployment, "swapped", {"min-train-groups": 1}) == 1
    told = deployment.log("swapped")
    for own, other in (("Alder", "Birch"), ("Birch", "Alder")):
        fault = f"node of group '{own}' says that it is group '{other}', and its key is registered"
        assert fault in told.replace("\n", " ")
        status = command("status", deployment.dir).output
        assert f"{own}: refused in the last run: its node says that it is group '{other}'" in status


def test_the_others_train_without_them(deployment: Deployment) -> None:
    assert run(deployment, "without", {"min-train-groups": 1, "expected-nodes": 2}) == 0
    record = json.loads((deployment.dir / "server/runs/without/run.json").read_text())
    assert [entry["group"] for entry in record["roster"]] == ["Cedar", "Dogwood"]
    assert set(record["refused"]) == {"Alder", "Birch"}


def test_a_role_that_is_not_registered_is_refused(deployment: Deployment) -> None:
    assert command("roles", deployment.dir).exit_code == 0  # as of this, Dogwood is to train
    assert run(deployment, "role", {"min-train-groups": 1}) == 1
    told = deployment.log("role").replace("\n", " ")
    assert "node of group 'Dogwood' says that its role is 'evaluation', and 'train'" in told
    back = command("roles", deployment.dir, "--evaluation-groups", "Dogwood")
    assert "Dogwood: never trains" in back.output
