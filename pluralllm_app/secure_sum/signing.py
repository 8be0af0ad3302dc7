"""Who a group is: its identity key, with which it signs what others must not take from a server.

In a deployment that is the key of its node, and every node knows the keys of the others. In a
simulation groups make keys for the run and believe each other's: it protects from nobody, since
all of them run on one machine, and does the same work.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from pluralllm_app.secure_sum.keys import packed

Peers = Mapping[str, ec.EllipticCurvePublicKey]
"""The public keys of the groups that a group knows, by name."""

_ALGORITHM = ec.ECDSA(SHA384())


@dataclass(frozen=True)
class Identity:
    """A group's name and its key, ECDSA on P-384."""

    group: str
    key: ec.EllipticCurvePrivateKey
    peers: Peers | None = None
    """Those that this group knows; None, in a simulation: it believes what they say they are."""

    @classmethod
    def simulated(cls, group: str) -> "Identity":
        """A new identity that others have to believe."""
        return cls(group, ec.generate_private_key(ec.SECP384R1()))

    @property
    def public(self) -> bytes:
        """The public key, as it travels."""
        return public_bytes(self.key.public_key())

    def sign(self, *content: object) -> bytes:
        """A signature of texts, numbers and bytes; their first is the purpose."""
        return self.key.sign(packed(*content), _ALGORITHM)

    def knows(self, group: str, public: bytes) -> bool:
        """Whether a public key is that of a group, as far as this one knows."""
        if group == self.group:
            return public == self.public
        if self.peers is None:
            return True
        return group in self.peers and public == public_bytes(self.peers[group])


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key, as it travels."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def identity_of(pem: bytes) -> bytes:
    """A public key as it travels, from its PEM; raises ValueError where it is none of ours."""
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("it is no key of an elliptic curve")
    return public_bytes(key)


def has_signed(public: bytes, signature: bytes, *content: object) -> bool:
    """Whether the holder of a public key has signed this; also False where that is no key."""
    try:
        key = load_der_public_key(public)
        if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)):
            return False
        key.verify(signature, packed(*content), _ALGORITHM)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True
