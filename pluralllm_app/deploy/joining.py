"""How a group's node is set up, on its own machine: the private key never leaves it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pluralllm_app import __version__
from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.core.names import file_slugs
from pluralllm_app.deploy import scripts
from pluralllm_app.deploy.invitation import FORMAT_VERSION, REQUEST, Invitation, Request, write
from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.deploy.layout import write_file, write_script
from pluralllm_app.deploy.units import supernode_unit
from pluralllm_app.errors import UserError
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.federation.policy_text import template
from pluralllm_app.survey.site import Site


@dataclass(frozen=True)
class Node:
    """The directory of a group's node, and what it asks the server."""

    path: Path
    request: Request


def join(invitation: Invitation, site: Path, out: Path) -> Node:
    """Make the directory of a group's node; it is there whole or not at all.

        ca.crt node.key node.key.pub start.sh pluralllm-supernode.service
        site/           a copy of the group's site
        request.json    for the server
        policy.toml     what the node lets a run ask of it, for its owner to fill in

    Args:
        invitation: of the server.
        site: directory of the group's site.
        out: directory to make, empty or not there; readable to its owner alone.

    Raises:
        UserError: the server has another version of the app, the site is damaged or of another
            questionnaire than the server's, or `out` holds something or cannot be written.
    """
    if invitation.app != __version__:
        raise UserError(
            f"the server has pluralllm_app {invitation.app}, and here is {__version__}: install "
            "the server's version"
        )
    found = Site.open(site)
    if found.survey.fingerprint != invitation.questionnaire:
        raise UserError(
            f"{site} is of another questionnaire than the server's (fingerprints "
            f"{found.survey.fingerprint[:12]} and {invitation.questionnaire[:12]}): make the site "
            "with the questionnaire that the server was set up with"
        )
    out = out.expanduser().resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is not empty: give a new directory, keys are never overwritten")
    slug = file_slugs([found.group])[found.group]
    key = make_node_key(slug)
    request = Request(
        request=FORMAT_VERSION,
        app=__version__,
        group=found.group,
        role=found.survey.group(found.group).role,
        key=key.public.decode(),
        questionnaire=found.survey.fingerprint,
    )
    try:
        with whole_directory(out, mode=0o700) as fresh:
            write_file(fresh / "ca.crt", invitation.authority.encode())
            write_file(fresh / "node.key", key.private, secret=True)
            write_file(fresh / "node.key.pub", key.public)
            script = scripts.supernode_script(invitation.superlink, found.group)
            write_script(fresh / "start.sh", script)
            unit = supernode_unit(out, slug)
            write_file(fresh / "pluralllm-supernode.service", unit.encode())
            write_file(fresh / REQUEST, write(request))
            write_file(fresh / POLICY, template().encode())
            # What a node learned in runs before is in the site's memory/, and stays there.
            shutil.copytree(found.survey.path, fresh / "site", ignore=lambda *_: {"memory"})
            (fresh / "site").chmod(0o700)
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror}; it is made whole in {out.parent}, which must "
            "be writable even if the directory is there already"
        ) from error
    return Node(out, request)
