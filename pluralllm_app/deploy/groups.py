"""The groups of a deployment: server/groups.json, and the public key of each group's node."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from pluralllm_app.core.atomic import whole_directory, write_atomically
from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.locks import held
from pluralllm_app.core.names import clean_text, file_slugs
from pluralllm_app.deploy.addresses import server_name, with_port
from pluralllm_app.deploy.keys import NodeKey, make_node_key, read_certificate, server_names
from pluralllm_app.deploy.layout import groups_file, read_connection, write_node, writing
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import Member, check_roles, read_members


def read_groups(path: Path) -> dict[str, str]:
    """The groups of the deployment at `path`: {slug: name}; raises as `read_registered` does."""
    return {slug: member.name for slug, member in read_registered(path).items()}


def read_registered(path: Path) -> dict[str, Member]:
    """The groups of the deployment at `path` with their roles, by slug.

    Raises:
        UserError: it is not a deployment, or damaged.
    """
    file = path / "server" / "groups.json"
    try:
        if not file.exists():
            raise UserError(
                f"{path} is not a deployment, because it has no server/groups.json: make one with "
                "`pluralllm deploy init`"
            )
    except OSError as error:
        raise UserError(
            f"cannot read {file}: {error.strerror}; run the command as the user who owns {path}"
        ) from error
    return read_members(file)


def check_group_names(names: list[str]) -> None:
    """Raise UserError for a group given twice, without a name, or with hidden characters in it."""
    for name in names:
        if not name:
            raise UserError("a group has no name: give one")
        if found := hidden(name):
            raise UserError(f"group {name!r} has the hidden character {found}: rename it")
        if names.count(name) > 1:
            raise UserError(f"group {name!r} is given twice, but each group has one node")


def add_group(path: Path, group: str, role: str = "train") -> tuple[str, NodeKey]:
    """Add a group to the deployment at `path`, with a node; returns the node's slug and key.

    Args:
        path: directory of the deployment.
        group: its name.
        role: what the group is registered for, train or evaluation.

    Raises:
        UserError: the group has no name or is there already, the directory of its node is there
            already, or something cannot be read or written.
    """
    with _changing(path) as groups:
        name = clean_text(group)
        check_group_names([name])
        names = [member.name for member in groups.values()]
        if name in names:
            raise UserError(
                f"group {name!r} is in {path} already: to give its node a new key, take it out "
                "with `pluralllm deploy remove` first"
            )
        slug = file_slugs([*names, name])[name]
        node = path / "nodes" / slug
        if node.exists():
            raise UserError(f"{node} belongs to an earlier node: move it away")
        superlink, key = _superlink(path), make_node_key(slug)
        authority = read_certificate(path / "server" / "ca.crt").public_bytes(Encoding.PEM)
        with writing():
            with whole_directory(node, mode=0o700) as fresh:
                write_node(fresh, slug, name, key, authority, superlink)
            write_atomically(path / "server" / "nodes" / f"{slug}.pub", key.public)
            write_atomically(
                path / "server" / "groups.json", groups_file(groups | {slug: Member(name, role)})
            )
    return slug, key


def remove_group(path: Path, slug: str) -> None:
    """Take a group and its node's public key out of the deployment at `path`.

    Raises:
        UserError: `path` cannot be written.
    """
    with _changing(path) as groups, writing():
        groups.pop(slug, None)  # another command may just have removed it
        write_atomically(path / "server" / "groups.json", groups_file(groups))
        (path / "server" / "nodes" / f"{slug}.pub").unlink(missing_ok=True)


def set_roles(path: Path, evaluation: Collection[str]) -> dict[str, Member]:
    """Register which groups of the deployment at `path` never train; all others do.

    Args:
        path: directory of the deployment.
        evaluation: slugs of the groups.

    Raises:
        UserError: `path` cannot be written.
    """
    with _changing(path) as groups, writing():
        changed = {
            slug: Member(member.name, "evaluation" if slug in evaluation else "train")
            for slug, member in groups.items()
        }
        write_atomically(path / "server" / "groups.json", groups_file(changed))
    return changed


def read_roles(path: Path) -> dict[str, str]:
    """The registered roles of the groups of the deployment at `path`, by slug.

    Raises:
        UserError: as `read_registered`; or an earlier version registered no roles.
    """
    members = read_registered(path)
    check_roles(members, path)
    return {slug: str(member.role) for slug, member in members.items()}


def _superlink(path: Path) -> str:
    """What the nodes of the deployment at `path` call."""
    address, _ = read_connection(path)
    port = address.rpartition(":")[2]
    if not port.isdecimal():
        raise UserError(f"the address {address!r} in {path}/flwr-home/config.toml has no port")
    first = server_names(path / "server" / "server.crt")[0]
    return with_port(server_name(first), int(port))


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Member]]:
    """The groups of a deployment, which no other command changes during the block."""
    read_groups(path)  # it is a deployment
    with writing():
        busy = f"another command changes the groups of {path}: wait for it"
        lock = held(path / "server" / ".lock", busy)
    with lock:
        yield read_registered(path)
