"""Secure sums and noise of real nodes, which know each other by the keys of their nodes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pluralllm_app.federation.audit_log import AUDIT_LOG
from pluralllm_app.federation.ledger import Draw, Ledger
from pluralllm_app.federation.noised_updates import DIRECTORY
from pluralllm_app.federation.peers import trusted_peers
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.privacy.accounting import epsilon_of, rho_of
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.site import Site
from tests.conftest import TINY, make_survey
from tests.deploy.conftest import Note
from tests.support.deployment import model_weights
from tests.support.federation import Federation, Run
from tests.support.waiting import PATIENCE

TRAIN = ("Alder", "Birch", "Cedar", "Fir")  # of whom 3 open a sum
GROUPS = (*TRAIN, "Dogwood")
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
    path = tmp_path_factory.mktemp("survey") / "tiny"
    survey = make_survey(path, train=TRAIN, evaluation=("Dogwood",), respondents=400)
    with Federation(tmp_path_factory.mktemp("deployment") / "there", survey, GROUPS) as there:
        there.start_superlink()
        there.register()
        for group in TRAIN:
            there.start_node(group)
        there.wait_online(4)
        yield there


def draws_of(federation: Federation, group: str) -> list[Draw]:
    """The noise in the ledger of a group's node."""
    return list(Ledger.read(federation.node_dir(group)).noise.values())


@pytest.mark.engine
def test_factors_of_noised_answers_are_those_in_one_process(
    federation: Federation, tmp_path: Path
) -> None:
    """The nodes draw their noise in the first run, and the second one works with the same."""
    run = Run(tmp_path / "run")
    config = CONFIG | {
        "rounds": 1,
        "predictor": "factors",
        "questionnaire": str(federation.dir / "server" / "questionnaire"),
        "noise": "respondents",
        "epsilon": 1.0,
        "scores": "mean",
    }
    federation.submit(config | {"out": str(run.path)}, "factors").wait(PATIENCE)
    run.check(federation.log("factors"))
    sums = [entry["train"]["secure_sum"] for entry in run.rounds[1:]]
    assert [each["groups"] for each in sums] == [4]
    assert [each["exchanges"] for each in sums] == [1]  # keys were made for counts before
    assert set(trusted_peers(federation.node_dir("Alder"))) == {*TRAIN}
    same = federation.weights_without(config, tmp_path / "same", groups=TRAIN)
    assert model_weights(run.path) == same
    scores = run.rounds[-1]["evaluation"]
    assert (scores["roles"]["train"]["groups"], scores["groups"]) == (4, {})
    for group in TRAIN:
        assert draws_of(federation, group) == [Draw("respondents", rho_of(1.0, 1e-6), 1.0, 1e-6)]


@pytest.mark.story
def test_rewards_are_the_mean_of_true_answers(federation: Federation, tmp_path: Path) -> None:
    rollouts, out = tmp_path / "rollouts.jsonl", tmp_path / "rewards.jsonl"
    rows = [{"prompt": "", "completion": text, "question_id": "q1"} for text in ("A", "C", "Hm.")]
    rollouts.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for group in TRAIN:
        policy = federation.node_dir(group) / POLICY
        policy.write_text('rewards = "secure-sum"\n', "utf-8")
    command = ("pluralllm", "deploy", "reward", federation.dir, rollouts, "--out", out)
    asked = federation.start("reward", command)
    assert asked.wait(PATIENCE) == 0, federation.log("reward")
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    answers = [Site.open(federation.node_dir(group) / "site", group) for group in TRAIN]
    true = [site.survey.preferences(site.group).shares[2:5].tolist() for site in answers]
    expected = [sum(shares[option] for shares in true) / 4 for option in (0, 2)]
    assert [line["reward"] for line in lines[:2]] == pytest.approx(expected, abs=1e-9)
    assert lines[2] == {"reward": None, "groups": 0, "why": "name no option"}
    audit = (federation.node_dir("Alder") / AUDIT_LOG).read_text("utf-8").splitlines()
    kinds = [json.loads(line)["message"] for line in audit[-6:]]
    assert kinds.count("query.reward") == 2


@pytest.mark.story
def test_updates_with_noise_are_counted_after_that_of_answers(
    federation: Federation, tmp_path: Path
) -> None:
    federation.start_node("Dogwood")  # the only group that such a run scores
    federation.wait_online(5)
    before = draws_of(federation, "Alder")
    run = Run(tmp_path / "run")
    noised = {"noise": "groups", "epsilon": 4.0, "update-norm": 0.5, "weighting": "uniform"}
    config = CONFIG | noised | {"rounds": 1, "expected-nodes": 5}
    federation.submit(config | {"out": str(run.path)}, "groups").wait(PATIENCE)
    run.check(federation.log("groups"))
    [spent] = [entry["train"]["epsilon"] for entry in run.rounds[1:]]
    assert spent == pytest.approx(4.0, rel=1e-3)
    assert draws_of(federation, "Alder") == [*before, Draw("groups", rho_of(4.0, 1e-6), 4.0, 1e-6)]
    memories = [federation.node_dir(group) / "site" / "memory" for group in TRAIN]
    [experiment] = {kept.name for each in memories for kept in (each / DIRECTORY).iterdir()}
    for each in memories:
        shutil.rmtree(each / "secure-sums")  # so that the same sum can be asked for again
    same = federation.weights_without(config, tmp_path / "same", experiment)
    assert model_weights(run.path) == same
    policy = federation.node_dir("Alder") / POLICY
    policy.write_text("most-epsilon = 5\n", "utf-8")
    refused = Run(tmp_path / "refused")
    respondents = {"noise": "respondents", "update-norm": 0.0, "out": str(refused.path)}
    try:
        federation.submit(config | respondents, "refused").wait(PATIENCE)
    finally:
        policy.unlink()
    cost = sum(draw.rho for draw in draws_of(federation, "Alder")) + rho_of(4.0, 1e-6)
    why = "most-epsilon = 5.0, and noise that was drawn so far and that of this run cost epsilon"
    assert f"{why} = {epsilon_of(cost, 1e-6):.4g} at" in refused.fields["refused"]["Alder"]


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
