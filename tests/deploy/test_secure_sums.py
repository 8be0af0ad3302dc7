"""Secure sums between real nodes, which know each other by the keys of their nodes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pluralllm_app.federation.audit_log import AUDIT_LOG
from pluralllm_app.federation.peers import trusted_peers
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.site import Site
from tests.conftest import TINY, make_survey
from tests.deploy.conftest import Note
from tests.support.deployment import model_weights
from tests.support.federation import Federation, Run
from tests.support.waiting import PATIENCE

GROUPS = ("Alder", "Birch", "Cedar", "Fir")  # of whom 3 open a sum
CONFIG: dict[str, Scalar] = TINY | {
    "privacy": "secure-sum",
    "train-groups-per-round": 0,
    "evaluate-every": 100,
    "expected-nodes": 4,
    "start-timeout": PATIENCE,
    "round-timeout": PATIENCE,
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    survey = make_survey(tmp_path_factory.mktemp("survey") / "tiny", train=GROUPS, evaluation=())
    with Federation(tmp_path_factory.mktemp("deployment") / "there", survey, GROUPS) as there:
        there.start_all()
        yield there


@pytest.mark.engine
def test_factors_are_those_of_sums_in_one_process(federation: Federation, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = CONFIG | {
        "rounds": 1,
        "predictor": "factors",
        "questionnaire": str(federation.dir / "server" / "questionnaire"),
    }
    federation.submit(config | {"out": str(run.path)}, "factors").wait(PATIENCE)
    run.check(federation.log("factors"))
    sums = [entry["train"]["secure_sum"] for entry in run.rounds[1:]]
    assert [each["groups"] for each in sums] == [4]
    assert [each["exchanges"] for each in sums] == [1]  # keys were made for counts before
    assert set(trusted_peers(federation.node_dir("Alder"))) == {*GROUPS}
    assert model_weights(run.path) == federation.weights_without(config, tmp_path / "same")


@pytest.mark.story
def test_rewards_are_the_mean_of_true_answers(federation: Federation, tmp_path: Path) -> None:
    rollouts, out = tmp_path / "rollouts.jsonl", tmp_path / "rewards.jsonl"
    rows = [{"prompt": "", "completion": text, "question_id": "q1"} for text in ("A", "C", "Hm.")]
    rollouts.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for group in GROUPS:
        policy = federation.node_dir(group) / POLICY
        policy.write_text('rewards = "secure-sum"\n', "utf-8")
    command = ("pluralllm", "deploy", "reward", federation.dir, rollouts, "--out", out)
    asked = federation.start("reward", command)
    assert asked.wait(PATIENCE) == 0, federation.log("reward")
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    answers = [Site.open(federation.node_dir(group) / "site", group) for group in GROUPS]
    true = [site.survey.preferences(site.group).shares[2:5].tolist() for site in answers]
    expected = [sum(shares[option] for shares in true) / 4 for option in (0, 2)]
    assert [line["reward"] for line in lines[:2]] == pytest.approx(expected, abs=1e-9)
    assert lines[2] == {"reward": None, "groups": 0, "why": "name no option"}
    audit = (federation.node_dir("Alder") / AUDIT_LOG).read_text("utf-8").splitlines()
    kinds = [json.loads(line)["message"] for line in audit[-6:]]
    assert kinds.count("query.reward") == 2


@pytest.mark.fault
def test_a_node_that_is_killed_in_mid_round(
    federation: Federation, tmp_path: Path, note: Note
) -> None:
    """The run goes on without it: the others agree that it was lost, and take its masks off."""
    run = Run(tmp_path / "run")
    federation.plan("Birch", {2: "wait"})
    config = CONFIG | {"rounds": 3, "out": str(run.path)}
    submitted = federation.submit(config, "killed")
    federation.wait_begun("Birch", 2, submitted)
    federation.end_node("Birch")
    submitted.wait(PATIENCE)
    run.check(federation.log("killed"))
    sums = [entry["train"]["secure_sum"] for entry in run.rounds[1:]]
    assert [each["groups"] for each in sums] == [4, 3, 3]
    assert [each["exchanges"] for each in sums] == [3, 2, 2]
    assert run.missed("Birch") == [2, 3]
    title = "a node killed in a round with secure sums"
    note(title, "the others open their sum", lost=run.lost(), missed=len(run.missed("Birch")))
