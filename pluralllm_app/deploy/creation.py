"""How a deployment is made."""

from collections.abc import Sequence
from pathlib import Path

from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.core.names import clean_text, file_slugs
from pluralllm_app.deploy.addresses import LOCAL, check_one_family, server_name
from pluralllm_app.deploy.groups import check_group_names
from pluralllm_app.deploy.keys import make_authority, make_node_key, make_server_certificate
from pluralllm_app.deploy.layout import Deployment, write_deployment
from pluralllm_app.errors import UserError


def initialise(
    path: Path,
    servers: list[str],
    groups: list[str],
    port: int,
    evaluation_groups: Sequence[str] = (),
) -> Deployment:
    """Make the directory of a deployment; it is there whole or not at all.

    Args:
        path: a directory that is empty or not there; made readable to its owner alone.
        servers: DNS names and IP addresses of the SuperLink's machine; nodes take the first.
        groups: names of the groups that train.
        port: of the SuperLink.
        evaluation_groups: names of the groups that never train.

    Raises:
        UserError: `path` holds something or cannot be written, a name is neither a DNS name nor an
            IP address, addresses are of both IPv4 and IPv6, a group is given twice or has no name,
            or the port is not between 1 and 65535.
    """
    path = path.expanduser().resolve()
    servers = [server_name(name) for name in servers]
    train = [clean_text(name) for name in groups]  # as surveys have them
    groups = [*train, *map(clean_text, evaluation_groups)]
    if not servers or not groups:
        raise UserError("a deployment needs at least one --server and one --groups")
    check_one_family(servers)
    check_group_names(groups)
    if not 1 <= port <= 65535:
        raise UserError(f"port {port} must lie between 1 and 65535")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is not empty: give a new directory, keys are never overwritten")
    slugs = file_slugs(groups)
    authority = make_authority()
    deployment = Deployment(
        path=path,
        servers=servers,
        port=port,
        groups={slugs[group]: group for group in groups},
        roles={slugs[group]: "train" if group in train else "evaluation" for group in groups},
        authority=authority,
        server=make_server_certificate(authority, list(dict.fromkeys([*servers, *LOCAL]))),
        keys={slugs[group]: make_node_key(slugs[group]) for group in groups},
    )
    try:
        with whole_directory(path, mode=0o700) as fresh:
            write_deployment(deployment, fresh)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; it is made whole in {path.parent}, which must "
            "be writable even if the directory is there already"
        ) from error
    return deployment
