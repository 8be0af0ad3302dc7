"""What the owner of a node lets a run ask, and what a server gains by asking for more."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import RecordDict

from pluralllm_app import client_app
from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.errors import FederationError, RefusedError
from pluralllm_app.federation.flower_compat import key_bytes
from pluralllm_app.federation.ledger import LEDGER, Ledger
from pluralllm_app.federation.node_files import prepare_node
from pluralllm_app.federation.peers import KEY, accept, signing_key, trusted_peers
from pluralllm_app.federation.policy import POLICY, Policy
from pluralllm_app.federation.registration import (
    Member,
    fingerprint,
    parse_public_key,
    public_text,
)
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.secure_group import (
    ADVERTISE,
    AGREE,
    OPEN,
    SECURE_SUM,
    SecureGroup,
    pack,
)
from pluralllm_app.records.reader import read_rounds, read_run
from pluralllm_app.secure_sum.messages import AgreeRequest, Invitation, OpenRequest
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
ROLES = {"Alder": "train", "Birch": "train", "Cedar": "train"}
"""The groups that take part; Alder is the one with a policy."""


# ---- The rules, one by one ----


@pytest.mark.parametrize(
    ("policy", "asked", "why"),
    [
        (Policy(learners=("gpo",)), {"predictor": "factors"}, "has predictor = factors, prior"),
        (Policy(learners=("gpo",)), {"prior": "factors"}, "prior = factors, which is refined"),
        (Policy(learners=("factors", "refined")), {}, 'learners = ["factors", "refined"]'),
        (Policy(secure_sum="all"), {}, "privacy = none, with which the server sees what"),
        (Policy(), {"predictor": "factors"}, "run with privacy = secure-sum"),
        (Policy(), {"prior": "factors"}, 'has secure-sum = "factors", and'),
        (Policy(least_train_groups=4), {"min-train-groups": 3}, "min-train-groups = 4 or more"),
        (Policy(most_rounds=3), {"rounds": 4}, "rounds = 3 or fewer"),
    ],
)
def test_a_run_that_asks_for_more_is_refused(
    make_settings: Callable[..., Settings], policy: Policy, asked: Config, why: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        policy.check(make_settings(asked))
    assert str(refused.value).startswith("refused by the node: its policy.toml has ")
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (Policy(), {"predictor": "factors", "privacy": "secure-sum"}),
        (Policy(secure_sum="none"), {"predictor": "factors"}),
        (Policy(secure_sum="all"), {"privacy": "secure-sum"}),
        (Policy(learners=("refined",), secure_sum="none"), {"prior": "factors"}),
        (Policy(), {"predictor": "gpo"}),
        (Policy(least_train_groups=3), {"min-train-groups": 3}),
        (Policy(most_rounds=3), {"rounds": 3}),
    ],
)
def test_a_run_that_asks_for_less_is_not(
    make_settings: Callable[..., Settings], policy: Policy, asked: Config
) -> None:
    policy.check(make_settings(asked))


def test_a_sum_over_too_few_groups_is_refused() -> None:
    Policy(least_train_groups=8).check_cohort(8, 8)
    for role, kind in (("train", "train groups"), ("evaluation", "groups that never train")):
        with pytest.raises(RefusedError, match=f"-groups = 8, and the sum is over 7 {kind}"):
            Policy(least_train_groups=8).check_cohort(7, 7, role)


def test_what_is_risky_is_said() -> None:
    [made_up] = Policy().cautions()
    assert "a server can make up groups" in made_up
    pins = {"North": "SHA256:" + "x" * 43}
    assert Policy(peers=pins).cautions() == []
    assert Policy(secure_sum="none", learners=("gpo",)).cautions() == []
    [plain] = Policy(secure_sum="none").cautions()
    assert "the server can compute every answer of this group" in plain
    [seeded] = Policy(secure_sum="all", draws="run-seed", peers=pins).cautions()
    assert "the server knows which questions" in seeded


# ---- A federation in one process, whose server attacks ----


class Federation:
    """Nodes with keys, sites and policies of their own, and the keys that a server registers."""

    def __init__(self, survey: PreparedSurvey, path: Path, config: Config) -> None:
        self.path = path
        self.config = config | {
            "survey": "",
            "questionnaire": str(survey.path),
            "expected-nodes": 3,
        }
        self.members: dict[bytes, Member] = {}
        for name, role in ROLES.items():
            node = self.node(name)
            node.mkdir(parents=True)
            write_site(survey, name, node / "site")
            write_atomically(node / KEY, make_node_key(name).private, secret=True)
            self.members[key_bytes(signing_key(node).public_key())] = Member(name, role)
            prepare_node(node)

    def node(self, name: str) -> Path:
        return self.path / name

    def allow(self, policy: str, name: str = "Alder") -> None:
        """Write a node's policy."""
        (self.node(name) / POLICY).write_text(policy)

    def run(self, out: str, *, run_id: int = 1, **changed: Scalar) -> Path:
        """Run a federation with this server; returns its run directory."""
        settings = {key.replace("_", "-"): value for key, value in changed.items()}
        config = self.config | settings | {"out": str(self.path / out)}
        grid = LocalGrid(client_app.app, config, nodes=3)
        for context, name in zip(grid.contexts.values(), ROLES, strict=True):
            node = self.node(name)
            context.run_id = run_id
            context.node_config = {"site": str(node / "site"), "node": str(node)}
        self.keys = dict(zip(grid.get_node_ids(), self.members, strict=False))
        run_federation(grid, Settings.from_config(config), config, members=self.members)
        return self.path / out

    def swapped(self, name: str, key: bytes) -> None:
        """Register another key for a group, which its node does not have."""
        self.members = {key if own.name == name else old: own for old, own in self.members.items()}


@pytest.fixture
def federation(
    tiny_survey: PreparedSurvey, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> Federation:
    made = Federation(tiny_survey, tmp_path, config | {"rounds": 2, "min-train-groups": 2})
    keys = "pluralllm_app.federation.flower_compat.node_keys"
    monkeypatch.setattr(keys, lambda grid: made.keys)
    return made


def a_key() -> tuple[bytes, str]:
    """Another public key, as a SuperLink knows it, and its fingerprint."""
    public = parse_public_key(make_node_key("x").public, "a key")
    return key_bytes(public), fingerprint(public_text(public).encode())


def refused(run: Path) -> dict[str, str]:
    info = read_run(run)
    assert info
    return dict(info.refused)


def trained(run: Path) -> list[set[str]]:
    """The groups that each round has learned from."""
    return [set(entry.train.groups) for entry in read_rounds(run, complete=True) if entry.train]


@pytest.mark.slow
def test_factors_are_learned_by_secure_sums_unless_their_owners_say_otherwise(
    federation: Federation,
) -> None:
    """With the nodes' own keys, which each has heard of when the run began."""
    plain = {"predictor": "factors", "train_groups_per_round": 0, "min_train_groups": 3}
    with pytest.raises(FederationError, match='has secure-sum = "factors", and the run has pred'):
        federation.run("plain", **plain)
    assert set(refused(federation.path / "plain")) == {*ROLES}
    secure = federation.run("secure", privacy="secure-sum", **plain)
    assert trained(secure) == [{*ROLES}] * 2
    for name in ROLES:
        federation.allow('secure-sum = "none"', name)
    assert trained(federation.run("allowed", **plain)) == [{*ROLES}] * 2


@pytest.mark.parametrize(
    ("step", "content"),
    [
        (ADVERTISE, Invitation("0" * 32, 1, 1, 3, ("Alder", "Birch", "Cedar"))),
        (AGREE, AgreeRequest(1, ("Alder", "Birch", "Cedar"))),
        (OPEN, OpenRequest(1, ("Alder", "Birch", "Cedar"))),
    ],
)
def test_no_sum_is_opened_over_fewer_groups_than_the_owner_lets(
    tmp_path: Path, make_settings: Callable[..., Settings], step: str, content: object
) -> None:
    """Whatever the settings say, by which the run began."""
    settings = make_settings({"privacy": "secure-sum", "train-groups-per-round": 0})
    message = RecordDict({SECURE_SUM: pack("0" * 32, step, content)})
    asked = SecureGroup.of(message, settings, "Alder", tmp_path, None)
    with pytest.raises(RefusedError, match="train-groups = 4, and the sum is over 3 train groups"):
        asked.answer(5, Policy(least_train_groups=4))


def test_every_node_hears_of_the_others(federation: Federation) -> None:
    federation.run("run")
    keys = {own.name: key for key, own in federation.members.items()}
    for name in ROLES:
        known = trusted_peers(federation.node(name))
        assert {other: key_bytes(key) for other, key in known.items()} == keys


@pytest.mark.slow
def test_a_server_that_swaps_a_key_loses_the_nodes_that_know_it(federation: Federation) -> None:
    federation.run("first")
    key, shown = a_key()
    federation.swapped("Birch", key)
    with pytest.raises(FederationError, match="says that the key of group 'Birch' is SHA256:"):
        federation.run("swapped")
    told = refused(federation.path / "swapped")
    assert set(told) == {"Alder", "Birch", "Cedar"}  # Birch's own node, too
    assert told["Alder"].startswith("cannot take part: refused by the node: the server says")
    for name in ("Alder", "Cedar"):
        assert accept(federation.node(name), shown) == "Birch"
    with pytest.raises(FederationError, match="the key of this node's group"):
        federation.run("accepted")
    assert set(refused(federation.path / "accepted")) == {"Birch"}


@pytest.mark.slow
def test_a_stranger_is_told_and_where_peers_are_pinned_refused(
    federation: Federation,
) -> None:
    federation.run("first")
    pins = {
        name: fingerprint(public_text(key).encode())
        for name, key in trusted_peers(federation.node("Alder")).items()
        if name != "Alder"
    }
    federation.allow(f"peers = {{Birch = '{pins['Birch']}', Cedar = '{pins['Cedar']}'}}")
    federation.run("pinned")
    key, _ = a_key()
    federation.members[key] = Member("Stranger", "train")
    with pytest.raises(FederationError, match="pins no key for group 'Stranger'"):
        federation.run("stranger", min_train_groups=3)
    assert set(refused(federation.path / "stranger")) == {"Alder"}
    assert "Stranger" not in trusted_peers(federation.node("Alder"))
    assert "Stranger" in trusted_peers(federation.node("Birch"))


def test_a_pinned_key_is_the_only_one(federation: Federation) -> None:
    """Also at first sight, when the server's word would be taken."""
    _, other = a_key()
    birch = fingerprint(public_text(signing_key(federation.node("Birch")).public_key()).encode())
    federation.allow(f"[peers]\nBirch = '{birch}'\nCedar = '{other}'")
    with pytest.raises(FederationError, match=f"pins {re.escape(other)} for group 'Cedar'"):
        federation.run("run")
    assert trusted_peers(federation.node("Alder")) == {}


@pytest.mark.parametrize(
    ("policy", "asked", "key"),
    [
        ('learners = ["factors"]', {}, "learners"),
        ('secure-sum = "all"', {}, "secure-sum"),
        ("least-train-groups = 3", {}, "least-train-groups"),
        ("most-rounds = 1", {}, "most-rounds"),
    ],
)
def test_a_refused_run_names_the_group_and_the_rule(
    federation: Federation, policy: str, asked: Config, key: str
) -> None:
    federation.allow(policy)
    run = federation.run("run", expected_nodes=2)
    told = refused(run)["Alder"]
    assert told.startswith(f"cannot take part: refused by the node: its policy.toml has {key} = ")
    assert trained(run) == [{"Birch", "Cedar"}] * 2
    assert Ledger.read(federation.node("Birch")).total.rounds == 2
    assert not (federation.node("Alder") / LEDGER).exists()


@pytest.mark.slow
def test_a_server_that_asks_for_more_rounds_gets_none(
    federation: Federation,
) -> None:
    """In a run, in the next one after the node was started again, and by sending one again."""
    federation.allow("most-rounds-in-total = 3")
    assert trained(federation.run("first")) == [{*ROLES}] * 2
    prepare_node(federation.node("Alder"))
    second = federation.run("second", run_id=2)
    assert trained(second) == [{*ROLES}, {"Birch", "Cedar"}]
    failures = [each for entry in read_rounds(second, complete=True) for each in entry.failures]
    failure = next(each for each in failures if each.phase == "train")
    assert failure.group == "Alder"
    assert failure.reason.startswith(
        "refused by the node: its policy.toml has most-rounds-in-total = 3, and this would be "
        "number 4"
    )
    third = federation.run("third", run_id=1)  # as if it were the first
    assert trained(third) == [{"Birch", "Cedar"}] * 2
    assert Ledger.read(federation.node("Alder")).total.rounds == 3


def test_scores_stay_where_their_owner_says_so(federation: Federation) -> None:
    """It learns all the same."""
    federation.allow('single-scores = "stay"')
    run = federation.run("run")
    assert trained(run) == [{*ROLES}] * 2
    rounds = read_rounds(run, complete=True)
    for entry in rounds:
        assert entry.evaluation
        assert set(entry.evaluation.groups) == {"Birch", "Cedar"}
        [failure] = entry.failures
        assert (failure.group, failure.phase) == ("Alder", "evaluate")
    assert rounds[0].failures[0].reason == (
        "refused: the node's policy lets no scores of its group leave"
    )
    assert (
        rounds[-1]
        .failures[0]
        .reason.startswith('refused by the node: its policy.toml has single-scores = "stay"')
    )
    noted = json.loads((run / "run.json").read_text())
    assert noted["status"] == "completed"
