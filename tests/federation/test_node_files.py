"""Draws of a deployment follow from a secret of each node, and what its owner allows is checked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.federation.messages import Evaluation
from pluralllm_app.federation.node_files import SECRET, draws_of, prepare_node
from pluralllm_app.federation.policy import POLICY, Policy
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning.base import Request
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.support.deployment import model_weights
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
REQUEST = Request(round=3, evaluate=False, experiment="0" * 32, counted=2)
SENT = {"weights": np.arange(4, dtype=np.float32)}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    prepare_node(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        {"survey": "/a", "out": "/b", "resume-from": "/c", "expected-nodes": 7},
        {"round-timeout": 9.0, "checkpoint-every": 3, "tracker": "wandb"},
    ],
)
def test_a_repeated_or_resumed_round_draws_the_same(
    node: Path, config: Config, changed: Config
) -> None:
    first = draws_of(node, config, SENT, REQUEST)
    assert isinstance(first, int)
    assert first.bit_length() > 128
    assert draws_of(node, config, SENT, REQUEST) == first
    later = replace(REQUEST, counted=0, evaluate=True, experiment="1" * 32)
    assert draws_of(node, config | changed, dict(SENT), later) == first


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"local-steps": 1}},
        {"config": {"optimizer": "sgd"}},
        {"config": {"learning-rate": 1e-9}},
        {"config": {"seed": 1}},
        {"request": {"round": 4}},
        {"request": {"options": {"proximal-mu": 1.0}}},
        {"sent": {"weights": np.array([0, 1, 2, 4], np.float32)}},
        {"sent": {"weights": np.arange(4, dtype=np.float64)}},
        {"sent": {"weight": np.arange(4, dtype=np.float32)}},
        {"secret": None},
    ],
)
def test_whoever_asks_for_something_else_sees_other_draws(
    node: Path, config: Config, changed: dict[str, Any]
) -> None:
    """So that two updates never tell of the same step."""
    first = draws_of(node, config, SENT, REQUEST)
    if "secret" in changed:
        (node / SECRET).unlink()
        prepare_node(node)
    other = config | changed.get("config", {})
    request = replace(REQUEST, **changed.get("request", {}))
    assert draws_of(node, other, changed.get("sent", SENT), request) != first


@pytest.mark.parametrize(
    "kept", [{"client-optimizer-state": "keep"}, {"prior": "factors"}], ids=["keep", "prior"]
)
def test_what_a_group_keeps_is_part_of_it(node: Path, config: Config, kept: Config) -> None:
    first = draws_of(node, config | kept, SENT, REQUEST)
    assert draws_of(node, config | kept, SENT, REQUEST) == first
    for other in (replace(REQUEST, counted=1), replace(REQUEST, experiment="1" * 32)):
        assert draws_of(node, config | kept, SENT, other) != first


def test_a_node_without_its_secret_does_not_fall_back_to_the_seed(
    node: Path, config: Config
) -> None:
    (node / SECRET).unlink()
    with pytest.raises(UserError, match=r"cannot read draws\.key") as refused:
        draws_of(node, config, SENT, REQUEST)
    assert str(node) not in str(refused.value)
    (node / POLICY).write_text('draws = "run-seed"')
    assert draws_of(node, config, SENT, REQUEST) is None


def run_at_nodes(config: Config, survey: PreparedSurvey, place: Path, out: str) -> bytes:
    """The weights of a run on nodes in this process, with a directory for each."""
    bare = config | {"survey": "", "out": str(place / out)}
    grid = LocalGrid(client_app.app, bare, nodes=5)
    names = sorted(group.name for group in survey.groups)
    for number, (context, group) in enumerate(zip(grid.contexts.values(), names, strict=True)):
        node = place / f"node-{number}"
        if not node.exists():
            node.mkdir(parents=True)
            write_site(survey, group, node / "site")
            prepare_node(node)
        context.node_config = {"site": str(node / "site"), "node": str(node)}
    run_federation(grid, Settings.from_config(bare), bare)
    return model_weights(place / out)


@pytest.mark.slow
def test_a_run_is_the_same_on_the_same_nodes_and_on_no_others(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    first = run_at_nodes(config, tiny_survey, tmp_path / "here", "first")
    assert run_at_nodes(config, tiny_survey, tmp_path / "here", "second") == first
    assert run_at_nodes(config, tiny_survey, tmp_path / "there", "first") != first
    for node in (tmp_path / "there").glob("node-*"):
        (node / SECRET).unlink()
        (node / POLICY).write_text('draws = "run-seed"')
    seeded = run_at_nodes(config, tiny_survey, tmp_path / "there", "second")
    assert seeded != first
    assert seeded == run_at_nodes(config, tiny_survey, tmp_path / "there", "third")


# ---- What the owner of a node allows ----


def test_the_policy_bounds_what_a_run_asks(make_settings: Callable[..., Settings]) -> None:
    policy = Policy(least_local_steps=2, least_tasks_per_step=3)
    policy.check(make_settings({"local-steps": 2, "tasks-per-step": 3}))
    secure: Config = {"predictor": "factors", "privacy": "secure-sum"}
    policy.check(make_settings({"local-steps": 1, **secure}))
    for asked in ({"local-steps": 1, "tasks-per-step": 3}, {"tasks-per-step": 2}):
        with pytest.raises(FederationError) as refused:
            policy.check(make_settings(asked))
        [(key, value)] = [(key, value) for key, value in asked.items() if value < 3]
        assert f"least-{key} = {value + 1}, and the run has {key} = {value}" in str(refused.value)
    Policy().check(make_settings({"local-steps": 1, "tasks-per-step": 1}))


def test_a_node_refuses_before_it_computes(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both when it is asked who it is and, should a server not ask, when it is to train."""
    node = tmp_path / "nodes" / "node-0"
    node.mkdir(parents=True)
    write_site(tiny_survey, "Alder", node / "site")
    prepare_node(node)
    (node / POLICY).write_text("least-local-steps = 3\n")
    score, scored = client_app.Received.score, []

    def noted(received: client_app.Received) -> Evaluation:
        scored.append(received.place.group.name)
        return score(received)

    monkeypatch.setattr(client_app.Received, "score", noted)
    with pytest.raises(FederationError, match=r"cannot take part: refused by the node: its"):
        run_at_nodes(config, tiny_survey, tmp_path / "nodes", "refused")
    check, asked = Policy.check, []

    def lenient_once(policy: Policy, settings: Settings) -> None:
        asked.append(policy)
        if len(asked) > 5:  # the five nodes were asked who they are
            check(policy, settings)

    monkeypatch.setattr(Policy, "check", lenient_once)
    with pytest.raises(FederationError, match="Alder: refused by the node: its policy"):
        run_at_nodes(config | {"min-train-groups": 3}, tiny_survey, tmp_path / "nodes", "trained")
    assert "Birch" in scored
    assert "Alder" not in scored
