"""The groups whose keys a node knows, so that no server can put itself between two of them.

    peers.json   beside the key of a node: {"known": {name: key}, "offered": {name: key},
                 "evaluation": [names]}

With the message that begins a run, the server names all registered groups that may train, with the
public keys of their nodes. A node takes its word for a name that it hears for the first time. From
then on it takes no other key for that name until its operator says so: the key is noted as offered,
and the run is refused. Who would rather not take that first word pins the fingerprints in
policy.toml.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pluralllm_app.core.atomic import read_json, write_atomically
from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.locks import held
from pluralllm_app.core.names import clean_text
from pluralllm_app.core.private_files import check_private
from pluralllm_app.errors import RefusedError, UserError
from pluralllm_app.federation.bounds import MOST_TEXT
from pluralllm_app.federation.policy import Policy
from pluralllm_app.federation.registration import (
    Member,
    fingerprint,
    parse_public_key,
    public_text,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from flwr.app import RecordDict

PEERS, KEY = "peers.json", "node.key"
MOST_PEERS = 10_000
_RECORD, _EVALUATION = "peers", "evaluation-peers"  # records of a message
_WAIT_SECONDS = 10.0


# ---- What a node trusts, and what it signs with ----


def trusted_peers(node: Path, role: str = "train") -> dict[str, "EllipticCurvePublicKey"]:
    """The other groups whose keys a node trusts; where policy.toml pins some, these alone.

    Its own may be among them.

    Args:
        node: directory of the node.
        role: of the groups. Where none is pinned, one that was ever named as one that may train
            counts as such.

    Returns:
        Public keys (ECDSA, P-384) by the groups' names.

    Raises:
        UserError: peers.json or policy.toml is damaged.
    """
    peers, policy = Peers.read(node), Policy.read(node)
    pins = policy.pins(role)
    return {
        name: parse_public_key(key.encode(), f"a key in {PEERS}")
        for name, key in peers.known.items()
        if (
            pins.get(name) == fingerprint(key.encode())
            if policy.pinned
            else (name in peers.evaluation) == (role == "evaluation")
        )
    }


def signing_key(node: Path) -> "EllipticCurvePrivateKey":
    """The private key (ECDSA, P-384) of a node.

    It also signs the node's requests to the SuperLink, which are times: begin with a prefix of your
    own whatever else is to be signed.

    Args:
        node: directory of the node.

    Raises:
        UserError: it cannot be read, or others may read it, or it is another kind of key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    check_private(node / KEY)
    try:
        key = load_ssh_private_key((node / KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"cannot read {KEY}, the key of this node: {error}") from error
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)):
        raise UserError(f"{KEY} is not an ECDSA key of 384 bits, as `pluralllm deploy join` makes")
    return key


# ---- What a server says, and what a node makes of it ----


def introduction(members: Mapping[bytes, Member], scores: str = "per-group") -> "RecordDict":
    """What a server tells every node: the keys of the nodes of registered groups that may train.

    Where scores are summed, it tells those of the others as well.

    Args:
        members: by the public keys of their nodes, as the SuperLink knows them.
        scores: the setting.
    """
    from flwr.app import ConfigRecord, RecordDict

    train, others = (
        ConfigRecord(
            {own.name: key for key, own in members.items() if (own.role == "evaluation") == never}
        )
        for never in (False, True)
    )
    content = RecordDict({_RECORD: train})
    if scores == "mean":
        content[_EVALUATION] = others
    return content


def introduced(content: "RecordDict", role: str = "train") -> dict[str, str]:
    """The keys that a server names; {} where it names none.

    Args:
        content: of its message.
        role: of the groups.

    Returns:
        Public keys, as OpenSSH writes them, by the groups' names.

    Raises:
        RefusedError: a name or a key is none.
    """
    from flwr.app import ConfigRecord

    record = content.get(_EVALUATION if role == "evaluation" else _RECORD, ConfigRecord())
    if not isinstance(record, ConfigRecord) or len(record) > MOST_PEERS:
        raise RefusedError("the server's list of groups is none")
    for name in record:
        if not name or len(name) > MOST_TEXT or name != clean_text(name) or hidden(name):
            raise RefusedError(
                f"the server's list has a group {name[:MOST_TEXT]!r}, which is no name"
            )
    return {name: _public_text(name, key) for name, key in record.items()}


def meet(
    node: Path, own: str, said: Mapping[str, str], evaluation: Mapping[str, str] | None = None
) -> list[str]:
    """Take note of the keys that a server names.

    Args:
        node: directory of the node.
        own: name of its group.
        said: of groups that may train, see `introduced`.
        evaluation: of those that never do.

    Returns:
        A line for each group that the node did not know.

    Raises:
        RefusedError: a key is that of another name, or is neither the one that the node knows for
            its name nor the one that policy.toml pins, or policy.toml pins some and not this one,
            or as one of the other role.
        UserError: peers.json is damaged, or cannot be written, or the node's key cannot be read.
    """
    train, said = said, {**(evaluation or {}), **said}
    if not said:
        return []
    shown = {name: fingerprint(key.encode()) for name, key in said.items()}
    policy = Policy.read(node)
    others = {name: has for name, has in shown.items() if name != own}
    policy.check_peers({name: has for name, has in others.items() if name in train}, "train")
    policy.check_peers({n: has for n, has in others.items() if n not in train}, "evaluation")
    key = public_text(signing_key(node).public_key())
    if said.get(own, key) != key and key in said.values():
        return []  # of another group, as which the server refuses this node by name
    with _changing(node) as peers:
        before = peers.known | {own: key}
        changed = {
            name: key
            for name, key in said.items()
            if before.get(name, key) != key
            and (name == own or policy.pinned.get(name) != shown[name])
        }
        if changed:
            offered = {name: key for name, key in changed.items() if name != own}
            replace(peers, offered=peers.offered | offered).write(node)
            raise RefusedError("; ".join(_odd(name, before, said, own) for name in changed))
        known = {**before, **said}
        if len(known) > MOST_PEERS:
            raise RefusedError(f"the server has named more than {MOST_PEERS} groups by now")
        names: dict[str, str] = {}
        for name, its_key in known.items():
            if (other := names.setdefault(its_key, name)) != name:
                raise RefusedError(f"the server's list gives {other!r} and {name!r} one key")
        offered = {name: key for name, key in peers.offered.items() if name not in said}
        never = {name for name in said if name not in train and name not in peers.known}
        Peers(known, offered, sorted({*peers.evaluation, *never} - {*train})).write(node)
    return [
        f"group {name!r} is new to this node: the server says that its key is {shown[name]}"
        for name in said
        if name not in before
    ]


def accept(node: Path, wanted: str) -> str:
    """Take a key that a server offers for a name that had another; returns the name.

    Args:
        node: directory of the node.
        wanted: fingerprint of the key, as the group's operator says it.

    Raises:
        UserError: no such key is offered; or peers.json is damaged, or cannot be written.
    """
    with _changing(node) as peers:
        for name, key in peers.offered.items():
            if fingerprint(key.encode()) == wanted:
                left = {other: text for other, text in peers.offered.items() if other != name}
                replace(peers, known=peers.known | {name: key}, offered=left).write(node)
                return name
    offered = [fingerprint(key.encode()) for key in peers.offered.values()]
    raise UserError(
        f"no server has offered this node a changed key with the fingerprint {wanted}: "
        + (f"there are {', '.join(offered)}" if offered else "none is waiting")
    )


def forget(node: Path, group: str) -> None:
    """Forget a group that has left, so that no `least-cohort-share` counts it any more.

    Raises:
        UserError: the node knows no such group, or it is its own, or policy.toml pins it; or
            peers.json is damaged, or cannot be written.
    """
    if group in Policy.read(node).pinned:
        raise UserError(f"policy.toml pins group {group!r}: remove its line there first")
    with _changing(node) as peers:
        own = public_text(signing_key(node).public_key())
        others = [name for name, key in peers.known.items() if key != own]
        if group not in others:
            names = ", ".join(map(repr, others)) or "none"
            raise UserError(f"this node knows no other group {group!r}: it knows {names}")
        known, offered = (
            {name: key for name, key in keys.items() if name != group}
            for keys in (peers.known, peers.offered)
        )
        evaluation = [name for name in peers.evaluation if name != group]
        Peers(known, offered, evaluation).write(node)


@dataclass(frozen=True)
class Peers:
    """The keys that a node has heard of, as OpenSSH writes them, by the groups' names."""

    known: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)
    """Other keys for known names, which the operator has not accepted."""
    evaluation: list[str] = field(default_factory=list)
    """Of the known, groups that never train, as far as the server has said."""

    @classmethod
    def read(cls, node: Path) -> "Peers":
        """Those in the directory of a node; none where it has not heard of any.

        Raises:
            UserError: peers.json is damaged.
        """
        try:
            content = read_json(node / PEERS)
            found = cls(**content)
            for name, key in [*found.known.items(), *found.offered.items()]:
                parse_public_key(key.encode(), f"the key of {name!r}")
        except (UserError, TypeError, AttributeError) as error:
            raise UserError(
                f"{PEERS} is damaged: restore it from a copy, or remove it. The node then takes "
                f"the server's word for every key anew ({str(error).replace(str(node), '')})"
            ) from error
        return found

    def write(self, node: Path) -> None:
        """Write peers.json, where it is not the same already."""
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"
        file = node / PEERS
        if not file.exists() or file.read_bytes() != content:
            write_atomically(file, content, secret=True)


@contextmanager
def _changing(node: Path) -> Iterator[Peers]:
    """What a node knows, which no other process changes during the block."""
    try:
        with held(node / f".{PEERS}.lock", f"another process writes {PEERS}", _WAIT_SECONDS):
            yield Peers.read(node)
    except OSError as error:
        raise UserError(
            f"cannot write {PEERS}, the keys that this node knows: {error.strerror}; let the node "
            "write the directory of its key"
        ) from error


def _odd(name: str, known: Mapping[str, str], said: Mapping[str, str], own: str) -> str:
    has, other = (fingerprint(keys[name].encode()) for keys in (known, said))
    if name == own:
        return f"the server says that the key of this node's group is {other}, and it is {has}"
    return (
        f"the server says that the key of group {name!r} is {other}, and this node knows {has}. If "
        "that group's operator confirms the new one, `pluralllm deploy peers NODE --accept "
        f"{other}` at this node takes it"
    )


def _public_text(name: str, key: object) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    refusal = RefusedError(f"what the server's list has for group {name!r} is no key of a node")
    if not isinstance(key, bytes):
        raise refusal
    try:
        loaded = load_pem_public_key(key)
    except (ValueError, UnsupportedAlgorithm):
        raise refusal from None
    if not (
        isinstance(loaded, ec.EllipticCurvePublicKey) and isinstance(loaded.curve, ec.SECP384R1)
    ):
        raise refusal
    return public_text(loaded)
