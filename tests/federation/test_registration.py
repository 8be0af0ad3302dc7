"""A node is who its key says, whatever it says of itself."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message, MessageType
from flwr.common.constant import ErrorCode

from pluralllm_app import client_app
from pluralllm_app.deploy.groups import read_roles, set_roles
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.federation import registration
from pluralllm_app.federation.registration import Member, registered_members
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.reader import read_rounds, read_run
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import write_questionnaire
from tests.deploy.conftest import path as made  # noqa: F401
from tests.deploy.conftest import template  # noqa: F401
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
Reply = Callable[[int, Message], Message | None]
GROUPS = ("Alder", "Birch", "Cedar", "Dogwood", "Élan 中/..")
ROLES = ("train", "train", "train", "evaluation", "evaluation")
MEMBERS = {
    f"key {number}".encode(): Member(name, role)
    for number, (name, role) in enumerate(zip(GROUPS, ROLES, strict=True))
}


class Deployed(LocalGrid):
    """A grid whose nodes have sites of their own, as in a deployment."""

    def __init__(self, config: Config, reply: Reply) -> None:
        super().__init__(client_app.app, config, nodes=5, reply=reply)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(grid: Deployed) -> dict[int, bytes]:
        return {node: f"key {node - 100}".encode() for node in grid.get_node_ids()}

    monkeypatch.setattr("pluralllm_app.federation.flower_compat.node_keys", keys)


def saying(lies: dict[int, dict[str, Scalar]]) -> Reply:
    """Nodes of a deployment, of which some say other things of themselves, by partition."""

    def reply(partition: int, message: Message) -> Message:
        if not message.has_error() and "description" in message.content.config_records:
            said = message.content.config_records["description"]
            said["nodes"] = 0
            for field, value in lies.get(partition, {}).items():
                said[field] = value
        return message

    return reply


def run(config: Config, lies: dict[int, dict[str, Scalar]], lines: list[str] | None = None) -> None:
    grid = Deployed(config, saying(lies))
    say: Callable[[str], None] = lines.append if lines is not None else lambda line: None
    run_federation(grid, Settings.from_config(config), config, say, MEMBERS)


def refused(config: Config) -> dict[str, str]:
    info = read_run(Path(str(config["out"])))
    assert info
    return dict(info.refused)


def test_nodes_that_say_what_is_registered_take_part(config: Config) -> None:
    run(config, {})
    assert refused(config) == {}


@pytest.mark.parametrize(
    ("lies", "names"),
    [
        ({0: {"group": "Birch"}, 1: {"group": "Alder"}}, {"Alder", "Birch"}),  # swapped keys
        ({0: {"group": "Birch"}}, {"Alder"}),  # another's name
        ({4: {"role": "train"}}, {"Élan 中/.."}),  # admitted for evaluation alone
        ({1: {"pool": 2**50, "questions": 2**50}}, {"Birch"}),
        ({1: {"dim": 2**50}}, {"Birch"}),
        ({2: {"nodes": 10**6}}, {"Cedar"}),
        ({0: {"pool": 1, "questions": 1}}, {"Alder"}),  # too few for the settings
        ({2: {"fingerprint": "f" * 64}, 3: {"fingerprint": "e" * 64}}, {"Cedar", "Dogwood"}),
        ({1: {"dim": 4}}, {"Birch"}),
        ({1: {"metric": "wasserstein"}}, {"Birch"}),
        ({1: {"survey_questions": 1000}}, {"Birch"}),
        ({0: {"version": "0.0.1, torch 1.0"}}, {"Alder"}),
    ],
)
def test_a_false_claimant_is_refused_by_name(
    config: Config, lies: dict[int, dict[str, Scalar]], names: set[str]
) -> None:
    config |= {"expected-nodes": 5}
    with pytest.raises(FederationError) as error:
        run(config, lies)
    assert set(refused(config)) == names
    for name in names:
        assert re.search(
            f"the node of group {name!r} (says that it|claims|describes|has)", str(error.value)
        )


def test_a_reason_that_several_nodes_have_is_told_once(config: Config) -> None:
    with pytest.raises(FederationError) as error:
        run(config | {"expected-nodes": 5}, {0: {"version": "0"}, 2: {"version": "0"}})
    assert "the node of group 'Alder' (and of 'Cedar') has version '0', the" in str(error.value)
    assert set(refused(config)) == {"Alder", "Cedar"}


def test_a_group_whose_site_says_that_it_never_trains_does_not(config: Config) -> None:
    """Whatever the server thinks of it."""
    name = "Élan 中/.."
    members = {key: Member(own.name, "train") for key, own in MEMBERS.items() if own.name == name}
    grid = Deployed(config, saying({4: {"role": "train"}}))
    settings = Settings.from_config(config)
    run_federation(grid, settings, config, members={**MEMBERS, **members})
    failures = [
        each
        for entry in read_rounds(Path(str(config["out"])), complete=True)
        for each in entry.failures
        if each.phase == "train"
    ]
    assert {each.group for each in failures} == {name}
    assert failures[0].reason.startswith("refused by the node: its site says that its group never")


def test_the_others_go_on_where_that_is_enough(config: Config) -> None:
    lines: list[str] = []
    run(config | {"expected-nodes": 4}, {1: {"group": "Cedar"}}, lines)
    info = read_run(Path(str(config["out"])))
    assert info
    assert info.roster
    assert [entry.group for entry in info.roster] == ["Alder", "Cedar", "Dogwood", "Élan 中/.."]
    assert any("refused: node 101 of group 'Birch' says that it is" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lie",
    [{"fingerprint": "f" * 64}, {"dim": 4}, {"metric": "wasserstein"}, {"version": "0.0.1"}],
)
def test_another_survey_or_version_ends_no_run_of_the_others(
    config: Config, lie: dict[str, Scalar]
) -> None:
    run(config | {"expected-nodes": 4}, {1: lie})
    info = read_run(Path(str(config["out"])))
    assert info
    assert info.status == "completed"
    [(field, value)] = lie.items()
    assert info.refused["Birch"].startswith(f"has {field} {value!r}")


def run_without_survey(config: Config, lies: dict[int, dict[str, Scalar]]) -> None:
    """As in a deployment, whose run config names no survey; nodes find theirs."""
    settings = replace(Settings.from_config(config), survey=None)
    run_federation(Deployed(config, saying(lies)), settings, config, members=MEMBERS)


def test_most_nodes_are_believed_where_the_server_has_no_questionnaire(config: Config) -> None:
    run_without_survey(config | {"expected-nodes": 4}, {1: {"fingerprint": "f" * 64}})
    assert refused(config)["Birch"].startswith(f"has fingerprint {'f' * 64!r}, the others ")


def test_where_no_survey_is_that_of_most_the_run_does_not_begin(config: Config) -> None:
    lies: dict[int, dict[str, Scalar]] = {
        node: {"fingerprint": str(node // 2) * 64} for node in range(1, 5)
    }
    with pytest.raises(FederationError, match=r"the node of group '.*' has fingerprint"):
        run_without_survey(config | {"expected-nodes": 2}, lies)


def test_the_servers_questionnaire_is_believed_and_not_most_nodes(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registration.SERVER, str(tmp_path))
    own = write_questionnaire(tiny_survey, tmp_path / "questionnaire").fingerprint
    lies: dict[int, dict[str, Scalar]] = {node: {"fingerprint": "f" * 64} for node in (0, 3, 4)}
    run_without_survey(config | {"expected-nodes": 2}, lies)
    assert set(refused(config)) == {"Alder", "Dogwood", "Élan 中/.."}
    assert refused(config)["Alder"] == (
        f"has fingerprint {'f' * 64!r}, the server's questionnaire {own!r}: give it a site of the "
        "same survey"
    )


def test_nobody_stands_in_for_a_group_that_is_away(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployed, "get_node_ids", lambda _: [100, 101, 103, 104])
    with pytest.raises(FederationError, match=r"3 of 4 nodes connected.*'Alder' says that it is"):
        run(config | {"expected-nodes": 4, "start-timeout": 0.1}, {0: {"group": "Cedar"}})


def test_a_key_of_no_group_is_not_asked(config: Config) -> None:
    asked: list[int] = []
    monkey = saying({})

    def reply(partition: int, message: Message) -> Message | None:
        asked.append(partition)
        return monkey(partition, message)

    members = {key: own for key, own in MEMBERS.items() if own.name != "Birch"}
    config |= {"expected-nodes": 4}
    grid = Deployed(config, reply)
    run_federation(grid, Settings.from_config(config), config, members=members)
    assert 1 not in asked


def test_a_node_that_fails_is_refused_and_named(config: Config) -> None:
    def reply(partition: int, message: Message) -> Message | None:
        if partition == 1:
            raise RuntimeError("no such survey")
        return saying({})(partition, message)

    grid = Deployed(config | {"expected-nodes": 4}, reply)
    run_federation(grid, Settings.from_config(config), config, members=MEMBERS)
    assert refused(config) == {"Birch": "cannot take part: no such survey"}


def test_a_node_that_says_that_it_is_lost_keeps_nobody_waiting(config: Config) -> None:
    """Longer than `start-timeout`; Flower's SuperLink would say so of a node that is not there."""

    def reply(partition: int, message: Message) -> Message | None:
        if partition == 1 and message.metadata.message_type == MessageType.QUERY:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
        return saying({})(partition, message)

    config |= {"expected-nodes": 4, "start-timeout": 0.2}
    run_federation(Deployed(config, reply), Settings.from_config(config), config, members=MEMBERS)
    assert "was lost before it said" in refused(config)["Birch"]


def test_roles_of_an_earlier_version_are_asked_for(made: Path) -> None:  # noqa: F811
    file = made / "server/groups.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({slug: entry["name"] for slug, entry in plain.items()}))
    command = rf"run `pluralllm deploy roles {made}`, with --evaluation-groups"
    with pytest.raises(UserError, match=command):
        registered_members(made / "server")
    set_roles(made, ["birch"])
    assert read_roles(made)["birch"] == "evaluation"
    members = registered_members(made / "server").values()
    assert [own.role for own in members] == ["train", "evaluation", "train"]


def test_registration_is_by_key_and_not_by_name(
    made: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(registration.SERVER, str(made / "server"))
    before = registration.read_registration()
    assert before
    alder, birch = (made / f"server/nodes/{slug}.pub" for slug in ("alder", "birch"))
    first, second = alder.read_bytes(), birch.read_bytes()
    alder.write_bytes(second)
    birch.write_bytes(first)
    after = registration.read_registration()
    assert after
    swapped = {"Alder": "Birch", "Birch": "Alder"}
    assert {key: swapped.get(own.name, own.name) for key, own in before.items()} == {
        key: own.name for key, own in after.items()
    }
