"""The directory of a deployment, and how its files are written.

ca/ca.key                  signs server certificates, by `renew`; keep it away from the network
server/                    what the SuperLink's machine needs; runs/ and state/ grow there
    ca.crt server.crt server.key start.sh pluralllm-superlink.service
    groups.json            {slug: name and role of the group}
    nodes/<slug>.pub       public keys of the nodes
    questionnaire/         the questions, as every group's site has them
invitation.json            what each group gets, for `pluralllm deploy join` on its own machine
flwr-home/config.toml      FLWR_HOME of who submits runs
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from pluralllm_app import __version__
from pluralllm_app.deploy import scripts
from pluralllm_app.deploy.addresses import is_ipv6, with_port
from pluralllm_app.deploy.invitation import FORMAT_VERSION, INVITATION, Invitation, write
from pluralllm_app.deploy.keys import Certificate
from pluralllm_app.deploy.units import superlink_unit
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import Member

if TYPE_CHECKING:
    from pluralllm_app.survey.prepared import PreparedSurvey

CONNECTION = "pluralllm"
QUESTIONNAIRE = Path("server", "questionnaire")


@dataclass(frozen=True)
class Deployment:
    """A new deployment: what its files will hold."""

    path: Path
    servers: list[str]
    """DNS names and IP addresses of the server; nodes take the first."""
    port: int
    authority: Certificate
    server: Certificate
    questionnaire: "PreparedSurvey"
    """What all groups share."""


def write_deployment(deployment: Deployment, root: Path) -> None:
    """Write all files of a deployment to the directory `root`, which will become its own."""
    ca, server, port = deployment.authority, deployment.server, deployment.port
    write_file(root / "ca" / "ca.key", ca.key_pem, secret=True)
    write_file(root / "server" / "ca.crt", ca.pem)
    write_file(root / "server" / "server.crt", server.pem)
    write_file(root / "server" / "server.key", server.key_pem, secret=True)
    script = scripts.superlink_script(deployment.servers, port)
    write_script(root / "server" / "start.sh", script)
    write_file(
        root / "server" / "pluralllm-superlink.service",
        superlink_unit(deployment.path / "server").encode(),
    )
    write_file(root / "server" / "groups.json", groups_file({}))
    (root / "server" / "nodes").mkdir(mode=0o700)
    from pluralllm_app.survey.questionnaire import write_questionnaire  # it takes long to import

    write_questionnaire(deployment.questionnaire, root / QUESTIONNAIRE)
    invitation = Invitation(
        invitation=FORMAT_VERSION,
        app=__version__,
        server=deployment.servers[0],
        port=port,
        authority=ca.pem.decode(),
        questionnaire=deployment.questionnaire.fingerprint,
    )
    write_file(root / INVITATION, write(invitation))
    # Runs are submitted on the server, see deploy.superlink: by the loopback address it listens on.
    loopback = "::1" if any(map(is_ipv6, deployment.servers)) else "127.0.0.1"
    connection = {
        "address": with_port(loopback, port),
        "root-certificates": str(deployment.path / "server" / "ca.crt"),
    }
    config = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    write_file(root / "flwr-home" / "config.toml", tomli_w.dumps(config).encode())


def groups_file(groups: Mapping[str, Member]) -> bytes:
    """The content of groups.json."""
    plain = {
        slug: {"name": member.name, "role": member.role} if member.role else member.name
        for slug, member in groups.items()
    }
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()


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


@contextmanager
def writing() -> Iterator[None]:
    """Let the block write files; raises UserError naming the one that cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error


def write_script(file: Path, text: str) -> None:
    """Write a script that can be run."""
    write_file(file, text.encode())
    file.chmod(0o755)


def write_file(file: Path, content: bytes, secret: bool = False) -> None:
    """Write a new file; only its owner can read a `secret` one."""
    for directory in reversed(file.parents):  # `parents=True` would ignore the mode above the last
        directory.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb"
    ) as stream:
        stream.write(content)
