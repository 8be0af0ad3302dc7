"""`pluralllm deploy join` and `admit`: how a group's node comes into a federation."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.deploy_texts import say


def join_command(
    invitation: Annotated[
        Path, typer.Argument(metavar="INVITATION", help="invitation.json of the server.")
    ],
    site: Annotated[Path, typer.Option(metavar="DIR", help="The group's site; it is copied.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory to make; it must be new or empty.")
    ],
) -> None:
    """Make a group's node on the group's own machine, and a request for the server.

    The node's private key is made here and never leaves this machine. Compare the fingerprint of
    the authority with the one that `init` printed, over another channel than the invitation's.

    Example:

      pluralllm deploy join invitation.json --site sites/north --out /opt/pluralllm/node
    """
    from pluralllm_app.deploy.invitation import REQUEST, certificate_fingerprint, read_invitation
    from pluralllm_app.deploy.joining import join
    from pluralllm_app.federation.policy import POLICY
    from pluralllm_app.federation.registration import fingerprint

    given = read_invitation(invitation)
    node = join(given, site, out)
    request = node.request
    trains = "trains" if request.role == "train" else "never trains, is only scored"
    say(f"{node.path}: the node of group {request.group}, which {trains}")
    say(f"fingerprint of the server's authority: {certificate_fingerprint(given.certificate)}")
    say(f"fingerprint of this node's key:        {fingerprint(request.key.encode())}")
    say(
        f"""
Next:
  to the server             {node.path / REQUEST}
  what it lets runs ask     {node.path / POLICY}
  say to its operator       the fingerprint of this node's key, over another channel
  start the node            {shlex.quote(f"{node.path}/start.sh")}"""
    )


def admit_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that `init` made.")],
    request: Annotated[
        Path, typer.Argument(metavar="REQUEST", help="request.json of the group's node.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="Of the node's key, as the group's operator says it; another key is refused."
        ),
    ] = None,
) -> None:
    """Let a group's node take part: register its name, its role and its public key.

    Run it on the server. Whether the group trains is what its site says; `pluralllm deploy roles`
    changes it.

    Examples:

      pluralllm deploy admit /opt/pluralllm request.json --fingerprint SHA256:...

      pluralllm deploy admit trial trial/nodes/north/request.json
    """
    from pluralllm_app.deploy.groups import admit_group, read_groups
    from pluralllm_app.deploy.invitation import read_request
    from pluralllm_app.errors import UserError
    from pluralllm_app.federation.registration import fingerprint as fingerprint_of

    read_groups(directory)  # a mistyped directory is told first
    asked = read_request(request)
    has = fingerprint_of(asked.key.encode())
    if fingerprint not in (None, has):
        raise UserError(
            f"the key in {request} has the fingerprint {has}: it is not the key whose fingerprint "
            "you were told. Do not admit it; ask the group for its request again"
        )
    slug = admit_group(directory, asked)
    trains = "trains" if asked.role == "train" else "never trains"
    say(f"{asked.group}: admitted, {trains}, key {has}")
    from pluralllm_app.deploy.control import NotRunningError, connect  # it takes Flower to import

    try:
        with connect(directory) as control:
            say(f"{asked.group}: registered as node {control.register(slug)}")
    except NotRunningError:
        say(
            "The SuperLink does not run. Once it does, make the node known to it: pluralllm deploy "
            f"register {shlex.quote(str(directory))}"
        )
