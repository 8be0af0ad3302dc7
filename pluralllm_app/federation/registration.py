"""Who the nodes of a deployment are: by their keys, as the server registered them.

A node proves its key with every request, and the SuperLink ties the key to the node's id. The
server's files tie the key to a group and its role: what a node says of itself changes neither.
"""

import base64
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralllm_app.core.atomic import read_json
from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.errors import FederationError, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from flwr.serverapp import Grid

    from pluralllm_app.federation.messages import NodeDescription

SERVER = "PLURALLLM_SERVER"
"""Environment variable of the SuperLink and of the apps that it starts: the directory server/."""
ROLES = ("train", "evaluation")
_SLUG = re.compile("[a-z0-9-]+")
_COPY = "copy it from node.key.pub of the node"
WHOSE = "in a deployment, `pluralllm deploy status` shows which group the node belongs to"


@dataclass(frozen=True)
class Member:
    """A group as the server registered it."""

    name: str
    role: str | None  # one of ROLES; None: by a version that registered no roles


def read_members(file: Path) -> dict[str, Member]:
    """The groups in groups.json, by slug.

    Raises:
        UserError: it is damaged.
    """
    members = {slug: _member(entry) for slug, entry in read_json(file).items()}
    names = [member.name for member in members.values() if member]
    whole = len(set(names)) == len(members) and not any(map(hidden, names))
    if not (whole and all(map(_SLUG.fullmatch, members))):
        raise UserError(
            f'{file} is damaged: it must hold each group once, as {{"north": {{"name": "North", '
            '"role": "train"}}, where north.pub in server/nodes is the key of its node'
        )
    return {slug: member for slug, member in members.items() if member}


def _member(entry: Any) -> Member | None:
    """An entry of groups.json; None where it is none."""
    if isinstance(entry, str):
        return Member(entry, None)
    if not isinstance(entry, dict) or set(entry) != {"name", "role"}:
        return None
    name, role = entry["name"], entry["role"]
    return Member(name, role) if isinstance(name, str) and role in ROLES else None


def read_public_key(file: Path) -> bytes:
    """A node's public key in a file, as the SuperLink knows it.

    Raises:
        UserError: it is not there, or another kind of key.
    """
    from pluralllm_app.federation.flower_compat import key_bytes  # it takes Flower to import

    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the public key {file}: {error.strerror}; {_COPY}") from error
    return key_bytes(parse_public_key(content, f"the public key {file}"))


def parse_public_key(content: bytes, what: str) -> "EllipticCurvePublicKey":
    """A node's public key.

    Args:
        content: as node.key.pub holds it.
        what: it is, for messages.

    Raises:
        UserError: it is damaged, or another kind of key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"cannot read {what}: {error}; {_COPY}") from error
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)):
        raise UserError(f"{what} is not an ECDSA key of 384 bits, as `pluralllm deploy join` makes")
    return key


def public_text(key: "EllipticCurvePublicKey") -> str:
    """A public key as OpenSSH writes it, without a comment."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def fingerprint(public: bytes) -> str:
    """The fingerprint of a public key file, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def check_roles(members: Mapping[str, Member], deployment: Path) -> None:
    """Raise UserError where the role of a group is not registered."""
    missing = [member.name for member in members.values() if member.role is None]
    if missing:
        raise UserError(
            f"{deployment}/server/groups.json is of an earlier version and does not say whether "
            f"{', '.join(map(repr, missing))} may train: run `pluralllm deploy roles "
            f"{shlex.quote(str(deployment))}`, with "
            "--evaluation-groups NAME for each group that never trains"
        )


def registered_members(server: Path) -> dict[bytes, Member]:
    """The groups of the deployment whose server has the directory `server`, by public key.

    Raises:
        UserError: the registration is damaged, or has no roles.
    """
    members = read_members(server / "groups.json")
    check_roles(members, server.parent)
    return {read_public_key(server / "nodes" / f"{slug}.pub"): own for slug, own in members.items()}


class Registered:
    """The nodes that may take part in a run, by what the server knows of their keys.

    Args:
        members: the registered groups by public key.
        progress: called with a line for each node that is refused.
    """

    def __init__(self, members: Mapping[bytes, Member], progress: Callable[[str], None]) -> None:
        self.members = members
        self._progress = progress
        self._of: dict[int, Member] = {}  # by the id of the node
        self.refused: dict[str, str] = {}  # why, by the name of the group

    def ids(self, grid: "Grid") -> list[int]:
        """Ids of the connected nodes of registered groups that are not refused, sorted."""
        from pluralllm_app.federation.flower_compat import node_keys

        found = {
            node: member
            for node, key in node_keys(grid).items()
            if (member := self.members.get(key))
        }
        self._of |= found
        return sorted(node for node, member in found.items() if member.name not in self.refused)

    def fault(self, node: int, said: "NodeDescription") -> str | None:
        """What a node says of itself that is not registered, in words that follow its name."""
        member = self._of[node]
        if said.group != member.name:
            return (
                f"says that it is group {said.group!r}, and its key is registered for "
                f"{member.name!r}: give it that group's site, or its own key"
            )
        if said.role != member.role:
            return (
                f"says that its role is {said.role!r}, and {member.role!r} is registered: give "
                "it another site, or change the role with `pluralllm deploy roles` on the server"
            )
        if said.nodes != 0:
            return f"says that it is one of {said.nodes} nodes of a simulation"
        return None

    def refuse(self, node: int, fault: str) -> None:
        """Keep a node out of the run, for a fault that follows its name in a sentence."""
        name = self._of[node].name
        self.refused[name] = fault
        self._progress(f"refused: node {node} of group {name!r} {fault}")

    def check_enough(self, needed: int) -> None:
        """Raise FederationError, naming the refused, where so many nodes can no longer be there."""
        if self.refused and len(self.members) - len(self.refused) < needed:
            raise FederationError(f"{self.told()} ({needed} nodes are needed)")

    def told(self) -> str:
        """Which nodes were refused, and why: each reason once."""
        groups: dict[str, list[str]] = {}
        for name, fault in self.refused.items():
            groups.setdefault(fault, []).append(repr(name))
        return "; ".join(
            f"the node of group {names[0]} "
            + (f"(and of {', '.join(names[1:])}) " if names[1:] else "")
            + fault
            for fault, names in groups.items()
        )


def read_registration() -> dict[bytes, Member] | None:
    """The registration that this process's SuperLink was started with; None where it has none.

    Raises:
        UserError: see `registered_members`.
    """
    server = os.environ.get(SERVER)
    return registered_members(Path(server)) if server else None


def registered_questionnaire() -> Path | None:
    """The questionnaire of the deployment whose SuperLink started this process, if it has one.

    Deployments that an earlier version made have none.
    """
    server = os.environ.get(SERVER)
    place = Path(server) / "questionnaire" if server else None
    return place if place and place.is_dir() else None
