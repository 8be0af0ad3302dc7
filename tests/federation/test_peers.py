"""Whose keys a node knows, and that no server changes them unseen."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.errors import RefusedError, UserError
from pluralllm_app.federation import peers
from pluralllm_app.federation.flower_compat import key_bytes
from pluralllm_app.federation.peers import (
    KEY,
    PEERS,
    accept,
    introduced,
    introduction,
    meet,
    signing_key,
    trusted_peers,
)
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.federation.registration import (
    Member,
    fingerprint,
    parse_public_key,
    public_text,
)

PublicKey = ec.EllipticCurvePublicKey


def key() -> PublicKey:
    return ec.generate_private_key(ec.SECP384R1()).public_key()


def said(**keys: PublicKey) -> dict[str, str]:
    """What a node hears of a server that registered these keys."""
    members = {key_bytes(own): Member(name, "train") for name, own in keys.items()}
    return introduced(introduction(members))


def shown(own: PublicKey) -> str:
    return fingerprint(public_text(own).encode())


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The directory of the node of group North."""
    made = make_node_key("north")
    (tmp_path / KEY).write_bytes(made.private)
    (tmp_path / KEY).chmod(0o600)
    return tmp_path


@pytest.fixture
def own(node: Path) -> PublicKey:
    return signing_key(node).public_key()


def test_a_key_is_believed_at_first_sight_and_kept(node: Path, own: PublicKey) -> None:
    east, west = key(), key()
    [line] = meet(node, "North", said(North=own, East=east))
    assert (
        line == f"group 'East' is new to this node: the server says that its key is {shown(east)}"
    )
    assert trusted_peers(node) == {"North": own, "East": east}
    [line] = meet(node, "North", said(North=own, East=east, West=west))
    assert "'West' is new" in line
    assert meet(node, "North", said(North=own, West=west)) == []
    assert trusted_peers(node) == {"North": own, "East": east, "West": west}
    assert (node / PEERS).stat().st_mode & 0o777 == 0o600


def test_a_server_that_names_nobody_teaches_nothing(node: Path) -> None:
    assert meet(node, "North", introduced(RecordDict())) == []
    assert trusted_peers(node) == {}
    assert not (node / PEERS).exists()


def test_a_swapped_key_is_refused_until_the_operator_takes_it(node: Path, own: PublicKey) -> None:
    east, new, stranger = key(), key(), key()
    meet(node, "North", said(North=own, East=east))
    for _ in range(2):  # however often it is tried
        with pytest.raises(RefusedError) as refused:
            meet(node, "North", said(North=own, East=new, Stranger=stranger))
        told = str(refused.value)
        assert told.startswith("refused by the node: the server says that the key of group 'East'")
        assert f"is {shown(new)}, and this node knows {shown(east)}" in told
        assert trusted_peers(node) == {"North": own, "East": east}
    with pytest.raises(UserError, match=r"no server has offered .*: there are SHA256:"):
        accept(node, shown(stranger))
    assert accept(node, shown(new)) == "East"
    assert trusted_peers(node)["East"] == new
    assert meet(node, "North", said(North=own, East=new)) == []
    with pytest.raises(RefusedError):  # the list of before, sent again
        meet(node, "North", said(North=own, East=east))


def test_a_key_that_is_offered_no_longer_cannot_be_taken(node: Path, own: PublicKey) -> None:
    east, new = key(), key()
    meet(node, "North", said(East=east))
    with pytest.raises(RefusedError):
        meet(node, "North", said(East=new))
    meet(node, "North", said(East=east))
    with pytest.raises(UserError, match="none is waiting"):
        accept(node, shown(new))


def test_where_keys_are_pinned_the_pins_decide(node: Path, own: PublicKey) -> None:
    """A key that the operator pins needs no further consent; what is not pinned is not trusted."""
    east, new, west = key(), key(), key()
    meet(node, "North", said(North=own, East=east, West=west))
    (node / POLICY).write_text(f"peers = {{East = '{shown(new)}'}}")
    assert trusted_peers(node) == {}
    with pytest.raises(RefusedError, match=f"pins {re.escape(shown(new))} for group 'East'"):
        meet(node, "North", said(North=own, East=east))
    meet(node, "North", said(North=own, East=new))
    assert trusted_peers(node) == {"East": new}
    with pytest.raises(RefusedError, match="pins no key for group 'West'"):
        meet(node, "North", said(North=own, East=new, West=west))


def test_nobody_else_is_this_node(node: Path, own: PublicKey) -> None:
    other = key()
    for pins in ("", f"peers = {{North = '{shown(other)}'}}"):
        (node / POLICY).write_text(pins)
        with pytest.raises(RefusedError, match=r"of this node's group is SHA256:.*, and it is"):
            meet(node, "North", said(North=other))
    assert trusted_peers(node) == {}


def test_a_node_with_another_groups_key_leaves_it_to_the_server(node: Path, own: PublicKey) -> None:
    """Which refuses it by name, and says what to change; the node learns nothing meanwhile."""
    assert meet(node, "North", said(North=key(), East=own, West=key())) == []
    assert trusted_peers(node) == {}


def test_a_server_that_names_ever_more_groups_is_stopped(
    node: Path, own: PublicKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "MOST_PEERS", 3)
    meet(node, "North", said(East=key(), West=key()))
    with pytest.raises(RefusedError, match="has named more than 3 groups by now"):
        meet(node, "North", said(South=key()))
    with pytest.raises(RefusedError, match="list of groups is none"):
        said(A=key(), B=key(), C=key(), D=key())


def test_two_groups_have_two_keys(node: Path, own: PublicKey) -> None:
    east = public_text(key())
    with pytest.raises(RefusedError, match="gives 'East' and 'West' one key"):
        meet(node, "North", {"East": east, "West": east})
    with pytest.raises(RefusedError, match="gives 'North' and 'West' one key"):
        meet(node, "North", {"West": public_text(own)})
    assert trusted_peers(node) == {}


def other_kind(make: Callable[[], PublicKey]) -> bytes:
    return make().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("", b"", "'', which is no name"),
        ("\x1b[31mEast", b"", "which is no name"),
        (" East", b"", "which is no name"),
        ("E" * 1001, b"", "which is no name"),
        ("East", b"", "'East' is no key of a node"),
        ("East", "text", "is no key of a node"),
        ("East", [1, 2], "is no key of a node"),
        (
            "East",
            other_kind(lambda: ec.generate_private_key(ec.SECP256R1()).public_key()),
            "is no key of a node",
        ),
    ],
)
def test_a_list_that_is_none_is_refused(name: str, content: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        introduced(RecordDict({"peers": ConfigRecord({name: content})}))


def test_a_list_of_another_kind_is_refused() -> None:
    with pytest.raises(RefusedError, match="list of groups is none"):
        introduced(RecordDict({"peers": ArrayRecord()}))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"known": {}, "more": {}}',
        '{"known": {"East": "no key"}}',
        '{"known": {"E": 1}}',
    ],
)
def test_damaged_peers_stop_the_node_and_are_not_written_over(node: Path, content: str) -> None:
    (node / PEERS).write_text(content)
    for act in (lambda: trusted_peers(node), lambda: meet(node, "North", said(East=key()))):
        with pytest.raises(UserError, match=r"peers\.json is damaged") as error:
            act()
        assert str(node) not in str(error.value)
    assert (node / PEERS).read_text() == content


def test_the_signing_key_is_the_one_that_is_registered(tmp_path: Path) -> None:
    made = make_node_key("north")
    (tmp_path / KEY).write_bytes(made.private)
    (tmp_path / KEY).chmod(0o600)
    assert signing_key(tmp_path).public_key() == parse_public_key(made.public, "the key")


def test_a_key_that_others_may_read_signs_nothing(node: Path) -> None:
    (node / KEY).chmod(0o644)
    with pytest.raises(UserError, match="others than its owner may read"):
        signing_key(node)


def test_groups_that_never_train_are_peers_of_their_own_kind(node: Path, own: PublicKey) -> None:
    """A server that calls a group that trained one that never does makes no cohort smaller."""
    east, west, south = key(), key(), key()

    def hear(roles: dict[str, str], scores: str = "mean") -> None:
        keys = {"North": own, "East": east, "West": west, "South": south}
        members = {key_bytes(keys[name]): Member(name, role) for name, role in roles.items()}
        content = introduction(members, scores)
        meet(node, "North", *(introduced(content, role) for role in ("train", "evaluation")))

    def known(role: str) -> set[str]:
        return {*trusted_peers(node, role)}

    roles = {"North": "train", "East": "train", "West": "evaluation"}
    hear(roles, "per-group")
    assert (known("train"), known("evaluation")) == ({"North", "East"}, set())
    hear(roles)
    assert (known("train"), known("evaluation")) == ({"North", "East"}, {"West"})
    hear({**roles, "East": "evaluation", "South": "evaluation"})
    assert (known("train"), known("evaluation")) == ({"North", "East"}, {"West", "South"})
    hear({**roles, "West": "train"})
    assert (known("train"), known("evaluation")) == ({"North", "East", "West"}, {"South"})
