"""`pluralllm deploy reward`, against a SuperLink that runs the app in this process."""

import json
import shutil
from pathlib import Path

import pytest
from flwr.proto.run_pb2 import RunStatus
from typer.testing import Result

from pluralllm_app import client_app
from pluralllm_app.deploy.groups import set_roles
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.errors import UserError
from pluralllm_app.federation.ledger import Ledger
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.federation.registration import registered_members
from pluralllm_app.federation.reward_server import run_rewards
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN
from tests.support.control_api import SuperLink, deploy
from tests.support.deployment import deployed

ROLLOUTS = [{"prompt": "", "completion": text, "question_id": "q0"} for text in ("A", "B", "Hm.")]


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory, tiny_survey: PreparedSurvey) -> Path:
    """A deployment of the groups that train, and of one that does not."""
    there = tmp_path_factory.mktemp("four") / "there"
    made = deployed(there, tiny_survey, [*TRAIN, "Dogwood"])
    set_roles(made, {"dogwood"})
    return made


@pytest.fixture
def path(of_four: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(of_four, tmp_path / "there"))


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    file = tmp_path / "rollouts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROLLOUTS), "utf-8")
    return file


@pytest.fixture
def online(superlink: SuperLink, path: Path) -> SuperLink:
    """The nodes of all groups are connected."""
    assert deploy("register", path).exit_code == 0
    for info in superlink.infos:
        info.status = "online"
    return superlink


@pytest.fixture
def answering(
    online: SuperLink, path: Path, tiny_survey: PreparedSurvey, monkeypatch: pytest.MonkeyPatch
) -> SuperLink:
    """The nodes answer, each from its own directory, with its own key and policy."""

    def start(config: dict[str, Scalar]) -> None:
        grid = InProcessGrid(client_app.app, config, nodes=len(online.infos))
        keys = {}
        for (node, context), info in zip(grid.contexts.items(), online.infos, strict=True):
            place = path / "nodes" / info.name
            context.node_config = {"site": str(place / "site"), "node": str(place)}
            keys[node] = info.public_key
        monkeypatch.setattr("pluralllm_app.federation.flower_compat.node_keys", lambda grid: keys)
        members = registered_members(path / "server")
        try:
            run_rewards(grid, Settings.from_config(config), lambda line: None, members)
        except UserError as error:
            details = f"ServerApp failed with exception: {error}"
            online.status = RunStatus(status="finished", sub_status="failed", details=details)
        else:
            online.status = RunStatus(status="finished", sub_status="completed")

    online.start = start
    return online


def let(path: Path, *policies: str) -> None:
    """Write the policies of nodes, in the order of their names."""
    for slug, policy in zip(("alder", "birch", "cedar"), policies, strict=True):
        (path / "nodes" / slug / POLICY).write_text(f'rewards = "{policy}"\n', "utf-8")


def reward(path: Path, rollouts: Path, *options: str | Path) -> Result:
    return deploy("reward", path, rollouts, *options)


def told(result: Result) -> str:
    """What the command says, and the error that it ends with."""
    return f"{result.output}{result.exception}"


def true(survey: PreparedSurvey, option: int) -> list[float]:
    """The groups' shares of an option of the first question."""
    return [float(survey.preferences(group).shares[option]) for group in TRAIN]


def test_rewards_are_printed_in_the_order_of_the_file(
    path: Path, rollouts: Path, answering: SuperLink, tiny_survey: PreparedSurvey
) -> None:
    let(path, "secure-sum", "secure-sum", "clear")
    result = reward(path, rollouts)
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["reward"] for line in lines[:2]] == pytest.approx(
        [sum(true(tiny_survey, option)) / 3 for option in (0, 1)], abs=1e-9
    )
    assert lines[2] == {"reward": None, "groups": 0, "why": "name no option"}
    assert "Asking 3 groups in a secure sum for 2 options" in result.stderr
    assert "3 completions, 2 scored; not scored: 1 name no option" in result.stderr
    assert list((path / "server" / "rewards").iterdir()) == []  # nothing is left
    # Who it is; keys, shares; whether it has answered, its shares, and twice what opens a sum.
    assert Ledger.read(path / "nodes" / "alder").total.messages == 7
    assert Ledger.read(path / "nodes" / "dogwood").total.messages == 0


def test_other_rules_need_each_groups_own(
    path: Path, rollouts: Path, answering: SuperLink, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    refused = reward(path, rollouts, "--rule", "min")
    assert "needs each group's own rewards" in told(refused)
    out = tmp_path / "rewards.jsonl"
    let(path, *["clear"] * 3)
    result = reward(path, rollouts, "--rule", "min", "-c", "privacy=none", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    first = json.loads(out.read_text().splitlines()[0])
    assert first["reward"] == min(true(tiny_survey, 0))
    assert first["by_group"] == dict(zip(TRAIN, true(tiny_survey, 0), strict=True))


@pytest.mark.slow
def test_adaptive_weights_go_on_with_their_history(
    path: Path, rollouts: Path, answering: SuperLink, tmp_path: Path
) -> None:
    history = tmp_path / "history.json"
    options = ("--rule", "adaptive-alpha", "-c", "privacy=none")
    assert "give --history FILE with it" in told(reward(path, rollouts, *options))
    assert "and only with it" in told(reward(path, rollouts, "--history", history))
    let(path, *["clear"] * 3)
    for calls in (1, 2):
        result = reward(path, rollouts, *options, "--history", history)
        assert result.exit_code == 0, result.output
        kept = json.loads(history.read_text())
        assert kept["groups"] == list(TRAIN)
        assert len(kept["calls"]) == calls


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--rule", "median"], "'median' does not exist: known are mean, min"),
        (["-c", "rounds=5"], "rounds plays no part in rewards, whose settings are privacy"),
        (["-c", "privacy=none", "-c", "min-contributors=1"], "min-contributors = 1 must be at"),
        (["--out", "none/there.jsonl"], "--out none/there.jsonl cannot be written"),
        (["--out", "."], "--out . cannot be written"),
        (["--history", "none/there.json"], "--history none/there.json cannot be written"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_anybody_is_asked(
    path: Path, rollouts: Path, online: SuperLink, options: list[str], error: str
) -> None:
    result = reward(path, rollouts, *options)
    assert error in told(result)
    assert online.status is None


def test_nobody_is_asked_for_nothing(path: Path, tmp_path: Path, online: SuperLink) -> None:
    file = tmp_path / "rollouts.jsonl"
    file.write_text(json.dumps(ROLLOUTS[2]), "utf-8")
    result = reward(path, file)
    assert "nothing to ask groups for: 1 completion, 0 scored; not scored: 1 name" in told(result)
    assert online.status is None


def test_all_groups_that_train_have_to_be_there(
    path: Path, rollouts: Path, online: SuperLink
) -> None:
    online.infos[1].status = "registered"
    online.infos[3].status = "registered"  # of the group that does not train
    result = reward(path, rollouts)
    assert "all groups that train have to be there:\nBirch: its node is not conn" in told(result)
    assert "Dogwood" not in told(result)
    assert online.status is None


@pytest.mark.parametrize(
    ("policies", "options", "rule"),
    [
        (["secure-sum", "refuse", "clear"], [], "refuse"),
        (["clear", "secure-sum", "clear"], ["--rule", "min", "-c", "privacy=none"], "secure-sum"),
    ],
)
def test_a_node_that_does_not_let_it_is_named(
    path: Path,
    rollouts: Path,
    answering: SuperLink,
    policies: list[str],
    options: list[str],
    rule: str,
) -> None:
    let(path, *policies)
    said = told(reward(path, rollouts, *options))
    assert "'Birch'" in said
    assert f'its policy.toml has rewards = "{rule}"' in said
    assert "Alder" not in said
    assert list((path / "server" / "rewards").iterdir()) == []


def test_training_is_not_for_rewards(path: Path, online: SuperLink) -> None:
    result = deploy("run", path, "-c", "purpose=rewards")
    assert "purpose is set by `pluralllm deploy reward` alone" in told(result)


def test_a_mistyped_directory_is_told(tmp_path: Path, rollouts: Path) -> None:
    result = reward(tmp_path / "mistyped", rollouts)
    assert "is not a deployment" in told(result)
