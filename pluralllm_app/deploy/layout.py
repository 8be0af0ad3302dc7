"""The directory of a deployment, and how it is made.

ca/ca.key                  signs server certificates, by `renew`; keep it away from the network
server/                    what the SuperLink's machine needs; runs/ and state/ grow there
    ca.crt server.crt server.key start.sh pluralllm-superlink.service
    groups.json            {slug: name of the group}
    nodes/<slug>.pub       public keys of the nodes
nodes/<slug>/              what a group's machine needs, and site/ of `pluralllm site`
    ca.crt node.key node.key.pub start.sh pluralllm-supernode.service
flwr-home/config.toml      FLWR_HOME of who submits runs
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding

from pluralllm_app.core.atomic import held, read_json, whole_directory, write_atomically
from pluralllm_app.core.names import clean_text, file_slugs
from pluralllm_app.deploy import scripts
from pluralllm_app.deploy.keys import (
    Certificate,
    NodeKey,
    make_authority,
    make_node_key,
    make_server_certificate,
    read_authority,
    read_certificate,
    server_names,
)
from pluralllm_app.errors import UserError

CONNECTION = "pluralllm"
_LOCAL = ("localhost", "127.0.0.1", "::1")  # the ServerApp and who submits runs
_SLUG = re.compile("[a-z0-9-]+")
_DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)


@dataclass(frozen=True)
class Deployment:
    """What `initialise` made."""

    path: Path
    groups: dict[str, str]
    """Name of the group by slug, in the order given."""
    authority: Certificate
    server: Certificate
    keys: dict[str, NodeKey]
    """By slug."""


def initialise(path: Path, servers: list[str], groups: list[str], port: int) -> Deployment:
    """Make the directory of a deployment; it is there whole or not at all.

    Args:
        path: a directory that is empty or not there; made readable to its owner alone.
        servers: DNS names and IP addresses of the SuperLink's machine; nodes take the first.
        groups: names of the groups.
        port: of the SuperLink.

    Raises:
        UserError: `path` holds something or cannot be written, a name is no DNS name or address,
            addresses are of both IPv4 and IPv6, a group is given twice or has no name, or the port
            is none.
    """
    path = path.expanduser().resolve()
    servers = [_server_name(name) for name in servers]
    groups = [clean_text(name) for name in groups]  # as surveys have them
    _check(servers, groups, port)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is not empty: give a new directory, keys are never overwritten")
    slugs = file_slugs(groups)
    authority = make_authority()
    deployment = Deployment(
        path,
        {slugs[group]: group for group in groups},
        authority,
        make_server_certificate(authority, list(dict.fromkeys([*servers, *_LOCAL]))),
        {slugs[group]: make_node_key(slugs[group]) for group in groups},
    )
    try:
        with whole_directory(path, mode=0o700) as fresh:
            _write_all(deployment, fresh, servers, port)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; it is made whole in {path.parent}, which must "
            "be writable even if the directory is there already"
        ) from error
    return deployment


def read_groups(path: Path) -> dict[str, str]:
    """The groups of the deployment at `path`: {slug: name}.

    Raises:
        UserError: it is no deployment, or damaged.
    """
    file = path / "server" / "groups.json"
    try:
        if not file.exists():
            raise UserError(
                f"{path} is no deployment, it has no server/groups.json: "
                "make one with `pluralllm deploy init`"
            )
    except OSError as error:
        raise UserError(
            f"cannot read {file}: {error.strerror}; run the command as the user who owns {path}"
        ) from error
    groups = read_json(file)
    names = list(groups.values())
    texts = all(isinstance(name, str) for name in names)
    if not (texts and all(map(_SLUG.fullmatch, groups)) and len(set(names)) == len(names)):
        raise UserError(
            f'{file} is damaged: it must hold each group once, as {{"north": "North"}}, where '
            "north.pub in server/nodes is the key of its node"
        )
    return groups


def add_group(path: Path, group: str) -> tuple[str, NodeKey]:
    """Add a group to the deployment at `path`, with a node; returns the node's slug and key.

    Raises:
        UserError: the group has no name or is there already, the directory of its node is, or
            something cannot be read or written.
    """
    with _changing(path) as groups:
        return _add_group(path, groups, clean_text(group))


def _add_group(path: Path, groups: dict[str, str], name: str) -> tuple[str, NodeKey]:
    _check_name(name)
    if name in groups.values():
        raise UserError(
            f"group {name!r} is in {path} already: to give its node a new key, take it out with "
            "`pluralllm deploy remove` first"
        )
    slug = file_slugs([*groups.values(), name])[name]
    node = path / "nodes" / slug
    if node.exists():
        raise UserError(f"{node} is of a node that there was before: move it away")
    superlink, key = _superlink(path), make_node_key(slug)
    authority = read_certificate(path / "server" / "ca.crt").public_bytes(Encoding.PEM)
    with _writing():
        with whole_directory(node, mode=0o700) as fresh:
            _write_node(fresh, slug, name, key, authority, superlink)
        write_atomically(path / "server" / "nodes" / f"{slug}.pub", key.public)
        write_atomically(path / "server" / "groups.json", _groups_file(groups | {slug: name}))
    return slug, key


def renew(path: Path, servers: list[str], new_authority: bool) -> Certificate:
    """Make the server of the deployment at `path` a new certificate.

    Args:
        path: directory of the deployment.
        servers: DNS names and IP addresses it is for; none: those of the old certificate.
        new_authority: make a new authority as well, which the nodes do not know.

    Raises:
        UserError: something cannot be read or written, ca.key is not of ca.crt, or a name is no DNS
            name or address.
    """
    read_groups(path)  # it is a deployment
    server, key = path / "server", path / "ca" / "ca.key"
    names = [_server_name(name) for name in servers] or server_names(server / "server.crt")
    authority = make_authority() if new_authority else read_authority(server / "ca.crt", key)
    made = make_server_certificate(authority, list(dict.fromkeys([*names, *_LOCAL])))
    files = {server / "server.key": made.key_pem, server / "server.crt": made.pem}
    if new_authority:
        files |= {key: authority.key_pem, server / "ca.crt": authority.pem}
    with _writing():
        key.parent.mkdir(mode=0o700, exist_ok=True)
        for file, content in files.items():
            write_atomically(file, content, secret=file.suffix == ".key")
    return made


def read_connection(path: Path) -> tuple[str, Path]:
    """Where runs of the deployment at `path` are submitted: address and root certificate.

    Raises:
        UserError: its flwr-home/config.toml does not say.
    """
    file = path / "flwr-home" / "config.toml"
    try:
        connection = tomllib.loads(file.read_text("utf-8"))["superlink"][CONNECTION]
        return str(connection["address"]), Path(connection["root-certificates"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{file} must have [superlink.{CONNECTION}] with address, such as "127.0.0.1:9443", '
            f"and root-certificates, the absolute path of server/ca.crt: write them ({error!r})"
        ) from error


def _superlink(path: Path) -> str:
    """What the nodes of the deployment at `path` call."""
    address, _ = read_connection(path)
    port = address.rpartition(":")[2]
    if not port.isdecimal():
        raise UserError(f"the address {address!r} in {path}/flwr-home/config.toml has no port")
    first = server_names(path / "server" / "server.crt")[0]
    return scripts.address(_server_name(first), int(port))


def remove_group(path: Path, slug: str) -> None:
    """Take a group and its node's public key out of the deployment at `path`.

    Raises:
        UserError: `path` cannot be written.
    """
    with _changing(path) as groups, _writing():
        groups.pop(slug, None)  # another command may just have removed it
        write_atomically(path / "server" / "groups.json", _groups_file(groups))
        (path / "server" / "nodes" / f"{slug}.pub").unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    """Let the block write files; raises UserError naming the one that cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """The groups of a deployment, which no other command changes during the block."""
    read_groups(path)  # it is a deployment
    with _writing():
        lock = (path / "server" / ".lock").open("w")
    with lock, held(lock, f"another command changes the groups of {path}: wait for it"):
        yield read_groups(path)


def _groups_file(groups: dict[str, str]) -> bytes:
    return (json.dumps(groups, indent=2, ensure_ascii=False) + "\n").encode()


def _server_name(name: str) -> str:
    name = name.lower().removeprefix("[").removesuffix("]")
    # An IPv6 address may end with the name of an interface, which can hold anything.
    address = scripts.is_ip(name) and "%" not in name
    if not address and not (len(name) <= 253 and _DNS_NAME.fullmatch(name)):
        raise UserError(
            f"--server {name!r} is no DNS name or IP address: give one without port or scheme, "
            "such as flower.example.org"
        )
    return name


def _check_name(group: str) -> None:
    if not group:
        raise UserError("a group has no name: give one")
    if not group.isprintable():
        raise UserError(f"group {group!r} has a line break or a control character: rename it")


def _check(servers: list[str], groups: list[str], port: int) -> None:
    if not servers or not groups:
        raise UserError("a deployment needs at least one --server and one --groups")
    families = {scripts.is_ipv6(name) for name in servers if scripts.is_ip(name)}
    if len(families) > 1:
        raise UserError(
            f"--server {', '.join(servers)}: the SuperLink listens on IPv4 or on IPv6, not on "
            "both, give addresses of one kind"
        )
    for group in groups:
        _check_name(group)
        if groups.count(group) > 1:
            raise UserError(f"group {group!r} is given twice: each has one node")
    if not 1 <= port <= 65535:
        raise UserError(f"port {port} must lie between 1 and 65535")


def _write_all(deployment: Deployment, root: Path, servers: list[str], port: int) -> None:
    ca, server = deployment.authority, deployment.server
    _write(root / "ca" / "ca.key", ca.key_pem, secret=True)
    _write(root / "server" / "ca.crt", ca.pem)
    _write(root / "server" / "server.crt", server.pem)
    _write(root / "server" / "server.key", server.key_pem, secret=True)
    _write_script(root / "server" / "start.sh", scripts.superlink_script(servers, port))
    _write(root / "server" / "pluralllm-superlink.service", scripts.superlink_unit().encode())
    _write(root / "server" / "groups.json", _groups_file(deployment.groups))
    superlink = scripts.address(servers[0], port)
    for slug, key in deployment.keys.items():
        node = root / "nodes" / slug
        _write_node(node, slug, deployment.groups[slug], key, ca.pem, superlink)
        _write(root / "server" / "nodes" / f"{slug}.pub", key.public)
    # Runs are submitted on the server, see deploy.superlink: by the loopback address it listens on.
    loopback = "::1" if any(map(scripts.is_ipv6, servers)) else "127.0.0.1"
    connection = {
        "address": scripts.address(loopback, port),
        "root-certificates": str(deployment.path / "server" / "ca.crt"),
    }
    config = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    _write(root / "flwr-home" / "config.toml", tomli_w.dumps(config).encode())


def _write_node(
    node: Path, slug: str, group: str, key: NodeKey, authority: bytes, superlink: str
) -> None:
    """Write what a group's machine needs: the directory `node`."""
    _write(node / "ca.crt", authority)
    _write(node / "node.key", key.private, secret=True)
    _write(node / "node.key.pub", key.public)
    _write_script(node / "start.sh", scripts.supernode_script(superlink, group))
    _write(node / "pluralllm-supernode.service", scripts.supernode_unit(slug).encode())


def _write_script(file: Path, text: str) -> None:
    _write(file, text.encode())
    file.chmod(0o755)


def _write(file: Path, content: bytes, secret: bool = False) -> None:
    for directory in reversed(file.parents):  # `parents=True` would ignore the mode above the last
        directory.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb"
    ) as stream:
        stream.write(content)
