"""The groups of a deployment: server/groups.json, and the public key of each group's node."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pluralllm_app import __version__
from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.locks import held
from pluralllm_app.core.names import clean_text, file_slugs, look
from pluralllm_app.deploy.invitation import Request
from pluralllm_app.deploy.keys import public_line
from pluralllm_app.deploy.layout import QUESTIONNAIRE, groups_file, writing
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import (
    Member,
    check_roles,
    parse_public_key,
    read_members,
    read_public_key,
)


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


def admit_group(path: Path, request: Request) -> str:
    """Register the group of a request at the deployment at `path`; returns its slug.

    Args:
        path: directory of the deployment.
        request: of the group's node.

    Raises:
        UserError: the group is there already, or one whose name looks like its own, or its key; it
            has no name, or one that a terminal would act on; its key is none; its site is of
            another questionnaire, its app of another version; or something cannot be read or
            written.
    """
    name = request.group
    if not name or name != clean_text(name) or hidden(name):
        raise UserError(f"the request names the group {name!r}, which is no clean name: refuse it")
    if request.app != __version__:
        raise UserError(
            f"the node of group {name!r} has pluralllm_app {request.app!r}, and here is "
            f"{__version__}: let it install this version and `pluralllm deploy join` again"
        )
    from pluralllm_app.survey.prepared import PreparedSurvey  # it takes long to import

    own = PreparedSurvey.open(path / QUESTIONNAIRE).fingerprint
    if request.questionnaire != own:
        raise UserError(
            f"the site of group {name!r} is of another questionnaire (fingerprints "
            f"{request.questionnaire[:12]!r} and here {own[:12]!r}): let it make its site with "
            "this one"
        )
    key = parse_public_key(request.key.encode(), f"the key of group {name!r}")
    from pluralllm_app.federation.flower_compat import key_bytes  # it takes Flower to import

    with _changing(path) as groups:
        for slug, member in groups.items():
            same = read_public_key(path / "server" / "nodes" / f"{slug}.pub") == key_bytes(key)
            if same and name == member.name:
                raise UserError(
                    f"group {name!r} is in {path} already, with this very key: nothing is left to "
                    "do, and `pluralllm deploy status` says whether its node is connected"
                )
            _check_other(name, member.name, path)
            if same:
                raise UserError(
                    f"the node of group {name!r} has the key of group {member.name!r}: let it "
                    "`pluralllm deploy join` on its own machine"
                )
        slug = file_slugs([*(member.name for member in groups.values()), name])[name]
        with writing():
            write_atomically(path / "server" / "nodes" / f"{slug}.pub", public_line(key, slug))
            write_atomically(
                path / "server" / "groups.json",
                groups_file(groups | {slug: Member(name, request.role)}),
            )
    return slug


def _check_other(name: str, other: str, path: Path) -> None:
    """Raise UserError where a group's name cannot be told from that of another group."""
    if name == other:
        raise UserError(
            f"group {name!r} is in {path} already: to give its node a new key, take it out with "
            "`pluralllm deploy remove` first"
        )
    if look(name) == look(other):
        raise UserError(
            f"group {name!r} looks like group {other!r}, which is in {path} already: let one of "
            "them take another name"
        )


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


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Member]]:
    """The groups of a deployment, which no other command changes during the block."""
    read_groups(path)  # it is a deployment
    with writing():
        busy = f"another command changes the groups of {path}: wait for it"
        lock = held(path / "server" / ".lock", busy)
    with lock:
        yield read_registered(path)
