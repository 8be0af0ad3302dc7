"""What the server of a deployment and a group's node tell each other before they can talk.

    invitation.json    from the server to every group: its address, whom to trust, which questions
    request.json       from a group's node to the server: the group, and its public key

Both are small files without any secret, and may travel by e-mail. What must not be swapped on the
way is the public key in each: of the authority, and of the node. Their fingerprints are printed on
both sides, to be compared over another channel.
"""

from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pluralllm_app.deploy.addresses import server_name, with_port
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import ROLES, parse_public_key
from pluralllm_app.survey.info import check_version

FORMAT_VERSION: Final = 1
MAX_BYTES = 64 * 1024
INVITATION, REQUEST = "invitation.json", "request.json"


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node must know to take part."""

    invitation: Literal[1]  # version of the format
    app: str  # version of pluralllm_app on the server
    server: str  # DNS name or IP address that nodes call
    port: int
    authority: str  # certificate of the deployment's authority, PEM
    questionnaire: str  # fingerprint

    @property
    def superlink(self) -> str:
        """What the node calls: host:port."""
        return with_port(self.server, self.port)

    @property
    def certificate(self) -> x509.Certificate:
        """The authority's certificate."""
        return x509.load_pem_x509_certificate(self.authority.encode())


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a group's node asks to be admitted with."""

    request: Literal[1]  # version of the format
    app: str  # version of pluralllm_app on the node
    group: str  # its name
    role: str  # one of ROLES, as in its site
    key: str  # public key of the node, as node.key.pub
    questionnaire: str  # fingerprint of its site's


def write(content: Invitation | Request) -> bytes:
    """The content of the file."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def read_invitation(file: Path) -> Invitation:
    """The invitation in a file.

    Raises:
        UserError: it is none, or damaged, or of another format.
    """
    found = _read(file, Invitation, "`pluralllm deploy init` wrote it on the server")
    try:
        server_name(found.server)
        constraints = found.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (UserError, ValueError, x509.ExtensionNotFound) as error:
        raise UserError(f"{file} is damaged ({error}): copy it again from the server") from error
    if not constraints.value.ca or not 1 <= found.port <= 65535:
        raise UserError(f"{file} is damaged: copy it again from the server")
    return found


def read_request(file: Path) -> Request:
    """The request in a file.

    Raises:
        UserError: it is none, or damaged, or of another format.
    """
    found = _read(file, Request, "`pluralllm deploy join` wrote it on the group's machine")
    if found.role not in ROLES:
        raise UserError(f"{file} is no request, its role is {found.role!r}: copy it again")
    parse_public_key(found.key.encode(), f"the key in {file}")
    return found


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """The sha256 of a certificate, as `openssl x509 -noout -fingerprint -sha256` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


Content = TypeVar("Content", Invitation, Request)


def _read(file: Path, kind: type[Content], where: str) -> Content:
    what = kind.__name__.lower()
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"cannot read the {what} {file}: {error.strerror}; {where}: copy it from there"
        ) from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{file} is no {what}, it is larger than {MAX_BYTES // 1024} KiB")
    try:
        version = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get(what, b"null")
        found = msgspec.json.decode(version)
        if found is not None:
            check_version(file, found, FORMAT_VERSION, "make it anew, with this version")
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UserError(f"{file} is no {what} ({error}): {where}, copy it from there") from error
