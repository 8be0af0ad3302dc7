"""The keys of a deployment: a certificate authority, the server's certificate, node keys."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pluralllm_app.core.private_files import check_private
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import public_text

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825  # the longest that TLS clients of some systems accept
_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate as a file holds it."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as a file holds it, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class NodeKey:
    """The key pair a SuperNode authenticates with, as `ssh-keygen -t ecdsa -b 384` writes it."""

    private: bytes
    public: bytes


def make_authority() -> Certificate:
    """Make a self-signed certificate authority that may sign end certificates alone."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("PluralLLM federation CA")
    builder = (
        _builder(key, AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    return Certificate(builder.sign(key, hashes.SHA384()), key)


def make_server_certificate(authority: Certificate, names: list[str]) -> Certificate:
    """Make the SuperLink's certificate for DNS names and IP addresses."""
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = authority.key.public_key()
    builder = (
        _builder(key, SERVER_DAYS)
        .subject_name(_name("PluralLLM SuperLink"))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )
    return Certificate(builder.sign(authority.key, hashes.SHA384()), key)


def read_certificate(file: Path) -> x509.Certificate:
    """The certificate in a file.

    Raises:
        UserError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the certificate {file}: {error}; restore it, or make a new one with "
            "`pluralllm deploy renew --server NAME`"
        ) from error


def read_authority(file: Path, key: Path) -> Certificate:
    """The certificate authority of two files.

    Raises:
        UserError: they cannot be read, or do not belong together; others may read the key.
    """
    certificate = read_certificate(file)
    try:
        content = key.read_bytes()
        check_private(key)
        private = load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"cannot read the private key {key}: {error}; restore it, or make a new authority "
            "with --new-authority"
        ) from error
    own = private.public_key() == certificate.public_key()
    if not (own and isinstance(private, ec.EllipticCurvePrivateKey)):
        raise UserError(f"{key} is not the key that {file} was made with: provide that one")
    return Certificate(certificate, private)


def server_names(file: Path) -> list[str]:
    """The DNS names and IP addresses of the certificate in a file, in the order it was made with.

    Raises:
        UserError: there is none, or it names nothing.
    """
    extensions = read_certificate(file).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise UserError(f"the certificate {file} names no server: {error}") from error
    return [str(name.value) for name in names]


def make_node_key(comment: str) -> NodeKey:
    """Make a SuperNode's key pair."""
    key = ec.generate_private_key(ec.SECP384R1())
    return NodeKey(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        public_line(key.public_key(), comment),
    )


def public_line(key: ec.EllipticCurvePublicKey, comment: str) -> bytes:
    """A public key as a file holds it."""
    return f"{public_text(key)} {comment}\n".encode()


def _builder(key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - _CLOCK_SKEW  # a node's clock may be behind
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
