"""Secrets shared out among the groups of a cohort; the one file here that knows Flower.

In two ways at once. Any `threshold` of the Shamir shares give a secret back. Of the `pieces`, which
are random but for their exclusive or, it takes all: cheap where nobody was lost.
"""

import secrets
from collections.abc import Mapping
from functools import reduce

SEED_BYTES = 31
"""Length of a secret: as long as fits, with Flower's padding, into two blocks of its scheme."""
SHARE_BYTES = 36  # 4 of the place among the groups, from 1, and two blocks of 16
_PLACE_BYTES = 4


def new_seed() -> bytes:
    """A secret."""
    return secrets.token_bytes(SEED_BYTES)


def share_out(secret: bytes, threshold: int, groups: int) -> list[bytes]:
    """Shares of a secret, one for each group, of which `threshold` give it back."""
    # Not at the top: it imports Flower, which whoever checks a threshold needs not.
    from flwr.common.secure_aggregation.crypto.shamir import create_shares

    return create_shares(secret, threshold, groups)


def is_share(share: bytes, place: int) -> bool:
    """Whether a share can be that of the group at `place`, from 0."""
    return len(share) == SHARE_BYTES and _place(share) == place


def put_together(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret of `threshold` shares by place, from 0; None where they belong to no secret.

    Whoever shared it out may have dealt anything: what comes out is to be compared with a
    commitment.
    """
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares

    assert len(shares) >= threshold, "the caller counts"
    places = sorted(shares)[:threshold]  # Flower's function takes exactly as many as are needed
    assert all(is_share(shares[place], place) for place in places), "the caller checks"
    try:
        secret = combine_shares([shares[place] for place in places])
    except ValueError:
        return None
    return secret if len(secret) == SEED_BYTES else None


def in_pieces(secret: bytes, groups: int) -> list[bytes]:
    """Pieces of a secret, one for each group: all of them give it back, fewer tell nothing."""
    pieces = [secrets.token_bytes(len(secret)) for _ in range(groups - 1)]
    return [*pieces, join_pieces([secret, *pieces])]


def join_pieces(pieces: list[bytes]) -> bytes:
    """The exclusive or of pieces, which all have one length."""
    whole = reduce(lambda left, right: left ^ right, (int.from_bytes(each) for each in pieces))
    return whole.to_bytes(len(pieces[0]))


def _place(share: bytes) -> int:
    return int.from_bytes(share[:_PLACE_BYTES], "little") - 1
