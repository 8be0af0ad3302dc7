"""How a deployment is made: the server's side, and the invitation to the groups."""

from pathlib import Path

from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.deploy.addresses import LOCAL, check_one_family, server_name
from pluralllm_app.deploy.keys import make_authority, make_server_certificate
from pluralllm_app.deploy.layout import Deployment, write_deployment
from pluralllm_app.errors import UserError
from pluralllm_app.survey.prepared import PreparedSurvey


def initialise(path: Path, servers: list[str], port: int, questionnaire: Path) -> Deployment:
    """Make the directory of a deployment; it is there whole or not at all.

    Args:
        path: a directory that is empty or not there; made readable to its owner alone.
        servers: DNS names and IP addresses of the SuperLink's machine; nodes take the first.
        port: of the SuperLink.
        questionnaire: directory of the questions that all groups answered.

    Raises:
        UserError: `path` holds something or cannot be written, a name is neither a DNS name nor an
            IP address, addresses are of both IPv4 and IPv6, the port is not between 1 and 65535, or
            there is no questionnaire, or it is damaged.
    """
    path = path.expanduser().resolve()
    servers = [server_name(name) for name in servers]
    if not servers:
        raise UserError("a deployment needs at least one --server")
    check_one_family(servers)
    if not 1 <= port <= 65535:
        raise UserError(f"port {port} must lie between 1 and 65535")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is not empty: give a new directory, keys are never overwritten")
    authority = make_authority()
    deployment = Deployment(
        path=path,
        servers=servers,
        port=port,
        authority=authority,
        server=make_server_certificate(authority, list(dict.fromkeys([*servers, *LOCAL]))),
        questionnaire=PreparedSurvey.open(questionnaire),
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
