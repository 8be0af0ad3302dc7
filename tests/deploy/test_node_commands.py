"""`pluralllm deploy policy` and `peers`, and the policy that a node begins with."""

import re
import tomllib
from pathlib import Path

import pytest

from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.errors import RefusedError, UserError
from pluralllm_app.federation.flower_compat import key_bytes
from pluralllm_app.federation.ledger import Count, Ledger
from pluralllm_app.federation.peers import introduced, introduction, meet
from pluralllm_app.federation.policy import NO_LIMIT, POLICY, Policy
from pluralllm_app.federation.policy_text import MEANINGS, template
from pluralllm_app.federation.registration import (
    Member,
    fingerprint,
    parse_public_key,
    read_members,
    registered_members,
)
from pluralllm_app.settings import section_keys
from tests.conftest import ROOT
from tests.support.control_api import GROUPS
from tests.support.deployment import command


@pytest.fixture
def node(path: Path) -> Path:
    return path / "nodes" / "alder"


def hear(node: Path, members: dict[bytes, Member]) -> None:
    meet(node, "Alder", introduced(introduction(members)))


def test_a_new_node_has_a_policy_that_sets_nothing(node: Path) -> None:
    assert (node / POLICY).read_text() == template()
    assert Policy.read(node) == Policy()


def test_the_file_shows_every_rule_with_its_default(node: Path) -> None:
    lines = [line.removeprefix("# ") for line in template().splitlines() if " = " in line]
    for line in lines:
        rule, _, meaning = line.partition("  # ")
        (node / POLICY).write_text(rule)
        key, value = next(iter(tomllib.loads(rule).items()))
        if key in ("North", "South"):
            continue
        assert meaning.strip() == MEANINGS[key]
        if Policy().of_key(key) == NO_LIMIT:
            assert Policy.read(node).of_key(key) == value
        else:
            assert Policy.read(node) == Policy()
    assert {*MEANINGS, "peers", "evaluation-peers"} == {*section_keys(Policy)}
    assert len(lines) == len(MEANINGS) + 2


def test_the_table_shows_what_holds_and_what_is_used_up(node: Path) -> None:
    (node / POLICY).write_text('secure-sum = "none"\nmost-rounds-in-total = 30\n')
    Ledger(Count(messages=25, rounds=12), {}).write(node)
    shown = command("policy", node)
    assert shown.exit_code == 0, shown.output
    cells = {
        row[0].strip(): row[1].strip()
        for line in shown.output.splitlines()
        if len(row := line.strip("│ ").split("│")) == 3
    }
    assert cells["most-rounds-in-total"] == "30 (12 so far)"
    assert cells["most-messages-in-total"] == "no limit (25 so far)"
    assert cells["learners"] == "gpo, factors, refined"
    assert cells["peers"] == "as the server first names them"
    assert {*section_keys(Policy)} <= {*cells}
    assert "the server can compute every answer of this group" in shown.output


def test_a_mistake_in_the_policy_is_shown(node: Path) -> None:
    (node / POLICY).write_text("most-round = 3")
    shown = command("policy", node)
    assert isinstance(shown.exception, UserError)
    assert "did you mean 'most-rounds'" in str(shown.exception)


def test_server_and_nodes_show_the_same_keys_in_a_form_to_pin(path: Path, node: Path) -> None:
    assert "This node knows no key yet" in command("peers", node).output
    hear(node, registered_members(path / "server"))
    shown = command("peers", node).output
    keys = {
        member.name: fingerprint((path / "nodes" / slug / "node.key.pub").read_bytes())
        for slug, member in read_members(path / "server" / "groups.json").items()
    }
    never = {"evaluation-peers": {GROUPS[2]: keys.pop(GROUPS[2])}}
    assert tomllib.loads(shown) == {"peers": keys}
    assert tomllib.loads(command("peers", path).output) == {"peers": keys, **never}
    (node / POLICY).write_text(shown)
    hear(node, registered_members(path / "server"))
    (node / POLICY).write_text(command("peers", path).output)
    hear(node, registered_members(path / "server"))


def test_a_changed_key_is_shown_and_taken_by_its_fingerprint(path: Path, node: Path) -> None:
    members = registered_members(path / "server")
    hear(node, members)
    other = key_bytes(parse_public_key(make_node_key("birch").public, "the key"))
    changed = {other: Member("Birch", "train")}
    with pytest.raises(RefusedError):
        hear(node, changed)
    shown = command("peers", node).output
    [offered] = re.findall(r"Birch: the server has named another key, (SHA256:\S+), and", shown)
    wrong = command("peers", node, "--accept", "SHA256:other")
    assert f"fingerprint SHA256:other: there are {offered}" in str(wrong.exception)
    assert command("peers", node, "--accept", offered).output.startswith("Birch: this node now")
    hear(node, changed)
    assert f'Birch = "{offered}"' in command("peers", node).output
    assert "it is a node that takes or forgets keys" in str(
        command("peers", path, "--accept", "x").exception
    )


def test_a_group_that_has_left_is_forgotten(path: Path, node: Path) -> None:
    members = registered_members(path / "server")
    hear(node, members)
    assert command("peers", node, "--forget", "Birch").output.startswith("Birch: this node no")
    assert "Birch" not in command("peers", node).output
    again = command("peers", node, "--forget", "Birch").exception
    assert "knows no other group 'Birch': it knows " in str(again)
    assert "'Birch'" not in str(again).split("it knows ")[1]
    own = command("peers", node, "--forget", "Alder").exception
    assert "knows no other group 'Alder'" in str(own)
    hear(node, members)
    (node / POLICY).write_text(command("peers", node).output)
    both = command("peers", node, "--forget", "Birch", "--accept", "SHA256:x").exception
    assert "give one at a time" in str(both)
    pinned = command("peers", node, "--forget", "Birch").exception
    assert "policy.toml pins group 'Birch'" in str(pinned)


@pytest.mark.parametrize("name", ["policy", "peers"])
def test_a_directory_that_is_no_node_is_named(tmp_path: Path, name: str) -> None:
    shown = command(name, tmp_path)
    assert f"{tmp_path} is no node, because it has no node.key" in str(shown.exception)


def test_the_deployment_page_shows_the_file() -> None:
    assert f"```toml\n{template()}```" in (ROOT / "docs/deployment.md").read_text("utf-8")
