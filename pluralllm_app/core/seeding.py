"""Random generators keyed by seed and purpose, so that no draw depends on the order of others."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *key: str | int) -> np.random.Generator:
    """Return the generator for one purpose, for example ``generator(7, "tasks", "Egypt", 12)``.

    The same arguments give the same stream in every process, and different arguments give
    independent ones. Parts are prefixed with their length, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in (seed, purpose, *key):
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "big")))
