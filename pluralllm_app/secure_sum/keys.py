"""Keys of a sum, and what is derived from them.

Everything is HKDF of SHA-256 with an `info` that names the purpose, the sum and the groups, so that
a key fits no other place. There are three contexts, each a digest with the one before in it:

- `Invitation.context`: which groups, sums and threshold. Keys are made for it.
- `Roll.context`: also all keys and weights that the groups have signed. Shares are sealed for it.
- `sum_context`: also which sum, and what it is of. Masks and signatures of survivors are for it.

Groups that were told different things so have different masks, which do not cancel: the server
learns nothing from the total. The attack is in Pasquini et al. 2022 (arXiv 2111.07380).
"""

import os
from hashlib import sha256

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pluralllm_app.secure_sum.fixed_point import Words

LABEL = "pluralllm_app secure sum, version 1"
KEY_BYTES = 32
_NONCE_BYTES = 12


def packed(*parts: object) -> bytes:
    """Texts, numbers and bytes as one text, from which each of them can be read again."""
    return msgspec.msgpack.encode([LABEL, *parts])


def derived(secret: bytes, *purpose: object) -> bytes:
    """A key of 32 bytes that a secret gives for a purpose."""
    return HKDF(SHA256(), KEY_BYTES, None, packed(*purpose)).derive(secret)


def mask_key(seed: bytes, context: bytes, number: int, group: str) -> X25519PrivateKey:
    """The private key s^SK of a group by which it shares masks with others, in one sum."""
    return X25519PrivateKey.from_private_bytes(derived(seed, "mask key", context, number, group))


def commitment(seed: bytes, context: bytes, number: int, group: str) -> bytes:
    """What a group says of the seed b of its self mask, before anybody has it."""
    return derived(seed, "commitment", context, number, group)


def sum_context(setup: bytes, number: int, meaning: bytes, length: int) -> bytes:
    """A digest of a sum: its setup, its number, what it is of, and how many words it has."""
    return sha256(packed("sum", setup, number, meaning, length)).digest()


def self_mask(seed: bytes, context: bytes, group: str, length: int) -> Words:
    """The mask PRG(b) that a group alone puts on its vector, in the sum of a context."""
    return keystream(derived(seed, "self mask", context, group), length)


def pair_mask(
    private: X25519PrivateKey, other: bytes, names: tuple[str, str], context: bytes, length: int
) -> Words:
    """The mask PRG(s_uv) that two groups share in a sum.

    Their names are part of it: a group that advertises another's key as its own would else make a
    third one put the same mask on twice, with opposite signs.

    Args:
        private: mask key of one of them.
        other: public mask key of the other.
        names: of both, in this order.
        context: of the sum.
        length: of the vectors.

    Raises:
        ValueError: the public key gives no secret.
    """
    both = sorted(zip(names, (public_bytes(private), other), strict=True))
    secret = private.exchange(X25519PublicKey.from_public_bytes(other))
    return keystream(derived(secret, "pair mask", context, *both), length)


def gives_a_secret(public: bytes) -> bool:
    """Whether a public key is one with which two parties come to a secret."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a point of low order
        return False
    return True


def keystream(key: bytes, length: int) -> Words:
    """`length` words of AES-256 in counter mode; a key is used for one vector alone."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    stream = encryptor.update(bytes(8 * length)) + encryptor.finalize()
    return np.frombuffer(stream, "<u8").astype(np.uint64, copy=False)


def seal(private: X25519PrivateKey, other: bytes, content: bytes, *place: object) -> bytes:
    """Encrypt what one group sends another through the server.

    Args:
        private: encryption key of the sender.
        other: public encryption key of the receiver.
        content: to encrypt.
        place: where it belongs: setup, sum, sender and receiver.

    Raises:
        ValueError: the public key gives no secret.
    """
    secret = private.exchange(X25519PublicKey.from_public_bytes(other))
    key = derived(secret, "shares", *place, public_bytes(private), other)
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, packed(*place))


def unseal(private: X25519PrivateKey, other: bytes, sealed: bytes, *place: object) -> bytes:
    """Undo `seal`, at the receiver; `other` is the sender's key.

    Raises:
        ValueError: the public key gives no secret.
        cryptography.exceptions.InvalidTag: it was sealed for another place, or changed.
    """
    secret = private.exchange(X25519PublicKey.from_public_bytes(other))
    key = derived(secret, "shares", *place, other, public_bytes(private))
    nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    return AESGCM(key).decrypt(nonce, content, packed(*place))


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The public key that belongs to a private one."""
    return private.public_key().public_bytes_raw()
