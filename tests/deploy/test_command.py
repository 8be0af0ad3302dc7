"""The commands about nodes, against a SuperLink that only keeps these."""

import re
import shutil
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pluralllm_app.deploy import keys
from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import fingerprint
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.control_api import GROUPS, SuperLink, deploy
from tests.support.deployment import deployed


def test_nodes_are_registered_once(superlink: SuperLink, path: Path) -> None:
    one = deploy("register", path, "--group", "Birch", "--group", "Birch")
    assert (one.exit_code, one.output) == (0, "Birch: registered as node 1\n")
    rest = deploy("register", path)
    assert rest.output.splitlines() == [
        "Alder: registered as node 2",
        "Birch: is registered already, as node 1",
        "Élan 中/..: registered as node 3",
    ]
    assert [info.name for info in superlink.infos] == ["birch", "alder", "elan"]


def test_a_node_that_cannot_be_registered_keeps_no_other(superlink: SuperLink, path: Path) -> None:
    deploy("register", path, "--group", "Alder")
    superlink.infos[0].status = "unregistered"
    (path / "server/nodes/birch.pub").write_text("damaged\n")
    done = deploy("register", path)
    assert done.output == "Élan 中/..: registered as node 2\n"
    assert isinstance(done.exception, UserError)
    first, alder, birch = str(done.exception).splitlines()
    assert first == "not registered:"
    assert alder.startswith("Alder: the node's key was registered and then unregistered")
    assert "takes no key twice" in alder
    assert birch.startswith("Birch: cannot read the public key")


@pytest.mark.parametrize("key", [None, b"damaged"])
def test_a_group_is_shut_out_without_its_key(
    superlink: SuperLink, path: Path, key: bytes | None
) -> None:
    deploy("register", path)
    file = path / "server/nodes/birch.pub"
    file.unlink()
    if key:
        file.write_bytes(key)
    assert "0 of 3 groups online" in deploy("status", path).output
    done = deploy("remove", path, "Birch")
    assert "node 2 is unregistered" in done.output
    assert superlink.infos[1].status == "unregistered"
    assert "birch" not in read_groups(path)


def test_a_group_is_shut_out_with_all_its_keys(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    shutil.copy(path / "nodes/alder/node.key.pub", path / "server/nodes/birch.pub")
    superlink.infos[0].name = "birch"
    deploy("remove", path, "Birch")
    assert [info.status for info in superlink.infos[:2]] == ["unregistered"] * 2


def test_a_removed_group_is_forgotten(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    done = deploy("remove", path, unicodedata.normalize("NFD", " Élan 中/.."))
    assert done.output == (
        f"Élan 中/..: node 3 is unregistered\nÉlan 中/..: the group is removed from {path}\n"
    )
    assert superlink.infos[2].status == "unregistered"
    assert read_groups(path) == {"alder": "Alder", "birch": "Birch"}
    assert not (path / "server/nodes/elan.pub").exists()
    assert deploy("register", path).exit_code == 0
    for info in superlink.infos[:2]:
        info.status = "online"
    status = deploy("status", path)
    assert (status.exit_code, "2 of 2 groups online" in status.output) == (0, True), status.output

    again = deploy("remove", path, "Elan")
    assert isinstance(again.exception, UserError)
    assert "no group 'Elan'" in str(again.exception)


def test_the_status_says_when_nodes_were_last_seen(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    online, offline, _ = superlink.infos
    day = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
    # Flower counts a node as online until two heartbeats are missed.
    online.status, online.heartbeat_interval, online.online_until = "online", 30, day + 60
    online.last_activated_at = "2026-01-01T00:00:00+00:00"
    offline.status, offline.last_deactivated_at = "offline", "2026-01-02T13:00:00+00:00"
    (path / "server/groups.json").write_text('{"alder": "Alder", "birch": "Birch"}')

    done = deploy("status", path)
    assert done.exit_code == 1
    for row in (
        r"Alder .* 1 .* online, seen 12:00:00 ",
        r"Birch .* 2 .* offline since 01-02 13:00:00 ",
        r"no group \(elan\) .* 3 .* never connected ",
        r"FLWR_HOME=\S+/there/flwr-home flwr supernode unregister NODE_ID pluralllm$",
        r"^1 of 2 groups online$",
    ):
        assert re.search(row, done.output, re.MULTILINE), (row, done.output)


def test_the_status_warns_of_the_certificate(
    superlink: SuperLink,
    path: Path,
    tiny_survey: PreparedSurvey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "expire" not in deploy("status", path).output
    monkeypatch.setattr(keys, "SERVER_DAYS", 20)
    other = deployed(path.parent / "other", tiny_survey)
    shutil.copy(other / "server/server.crt", path / "server")
    assert re.match(r"\S+/server\.crt expires on \d{4}-", deploy("status", path).output)


def test_a_group_is_removed_that_was_unregistered_before(superlink: SuperLink, path: Path) -> None:
    deploy("register", path)
    superlink.infos[0].status = "unregistered"
    (path / "server/nodes/alder.pub").unlink()
    for group in GROUPS:
        assert deploy("remove", path, group).exit_code == 0
    assert read_groups(path) == {}
    assert deploy("register", path).exit_code == 0


def test_a_group_gets_a_new_key(superlink: SuperLink, path: Path) -> None:
    old = (path / "server/nodes/alder.pub").read_bytes()
    deploy("register", path)
    deploy("remove", path, "Alder")
    node = path / "nodes/alder"
    joined = deploy(
        *("join", path / "invitation.json", "--site", node / "site", "--out", path / "again")
    )
    assert joined.exit_code == 0, joined.output
    public = (path / "again/node.key.pub").read_bytes()
    assert fingerprint(public) in joined.output
    admitted = deploy("admit", path, path / "again/request.json")
    assert admitted.output == (
        f"Alder: admitted, trains, key {fingerprint(public)}\nAlder: registered as node 4\n"
    )
    assert "Alder: is registered already, as node 4\n" in deploy("register", path).output
    superlink.infos[3].status = "unregistered"
    assert "takes no key twice" in str(deploy("register", path).exception)
    assert public != old
