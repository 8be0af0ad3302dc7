"""A new certificate for the server of a deployment."""

from pathlib import Path

from msgspec.structs import replace

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.deploy.addresses import LOCAL, server_name
from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.deploy.invitation import INVITATION, read_invitation, write
from pluralllm_app.deploy.keys import (
    Certificate,
    make_authority,
    make_server_certificate,
    read_authority,
    server_names,
)
from pluralllm_app.deploy.layout import writing


def renew(path: Path, servers: list[str], new_authority: bool) -> Certificate:
    """Make a new certificate for the server of the deployment at `path`.

    Args:
        path: directory of the deployment.
        servers: DNS names and IP addresses it is for; none: those of the old certificate.
        new_authority: make a new authority as well, which the nodes do not know.

    Raises:
        UserError: something cannot be read or written, ca.key does not belong to ca.crt, or a name
            is neither a DNS name nor an IP address.
    """
    read_groups(path)  # it is a deployment
    server, key = path / "server", path / "ca" / "ca.key"
    names = [server_name(name) for name in servers] or server_names(server / "server.crt")
    authority = make_authority() if new_authority else read_authority(server / "ca.crt", key)
    made = make_server_certificate(authority, list(dict.fromkeys([*names, *LOCAL])))
    files = {server / "server.key": made.key_pem, server / "server.crt": made.pem}
    if new_authority:
        files |= {key: authority.key_pem, server / "ca.crt": authority.pem}
    invitation = path / INVITATION
    if invitation.exists():  # deployments of earlier versions have none
        old = read_invitation(invitation)
        fresh = replace(old, server=names[0], authority=authority.pem.decode())
        files[invitation] = write(fresh)
    with writing():
        key.parent.mkdir(mode=0o700, exist_ok=True)
        for file, content in files.items():
            write_atomically(file, content, secret=file.suffix == ".key")
    return made
