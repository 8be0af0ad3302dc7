"""What server and groups say to each other, as msgpack; types and lengths are checked on reading.

    Invitation  ->  <- Advertisement    the setup of some sums: keys
    Roll        ->  <- Dealt                                    and shares
    MaskRequest ->  <- a masked vector  each sum
    AgreeRequest -> <- Agreement                 if a group was lost
    OpenRequest ->  <- Opening

In the words of the paper: advertise keys, share keys, masked input collection, consistency check,
unmasking.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from pluralllm_app.secure_sum.keys import packed
from pluralllm_app.secure_sum.shares import SEED_BYTES, SHARE_BYTES

FEWEST_GROUPS = 3
MOST_GROUPS = 10_000
MOST_SUMS = 64  # of a setup
MOST_NAME = 1000  # characters
MOST_WEIGHT = 10**7  # the most questions of a survey: a larger one would round others' numbers to 0
_MOST_KEY = 200  # bytes of an identity, or of a signature
_MOST_SEALED = 200  # bytes of the shares that one group gets of another

Content = TypeVar("Content")
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
LongKey = Annotated[bytes, Meta(max_length=_MOST_KEY)]
Seed = Annotated[bytes, Meta(min_length=SEED_BYTES, max_length=SEED_BYTES)]
Share = Annotated[bytes, Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
Box = Annotated[bytes, Meta(max_length=_MOST_SEALED)]
Name = Annotated[str, Meta(min_length=1, max_length=MOST_NAME)]
Names = Annotated[tuple[Name, ...], Meta(max_length=MOST_GROUPS)]
Number = Annotated[int, Meta(ge=1, lt=2**62)]


def write(message: object) -> bytes:
    """A message as bytes."""
    return msgspec.msgpack.encode(message)


def read(kind: type[Content], content: bytes) -> Content:
    """Undo `write`.

    Raises:
        ValueError: it is something else.
    """
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def least_threshold(groups: int) -> int:
    """The lowest threshold of a cohort, by which no server gets two openings of a sum over it.

    With it 2 t > n + n_c for any n_c <= n / 3 of the groups that are in league with the server, as
    section 6.2 of the paper has it for active servers. The server names the cohort: that it is most
    of the groups that a node knows is for the node's policy to say.
    """
    return 2 * groups // 3 + 1


@dataclass(frozen=True)
class Invitation:
    """Of a setup: for which sums, and with whom. All groups must have been told the same."""

    experiment: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]  # names the run
    first: Annotated[int, Meta(ge=1, lt=2**61)]  # of the sums; each is used once in a run
    count: Annotated[int, Meta(ge=1, le=MOST_SUMS)]
    threshold: Annotated[int, Meta(ge=1)]  # groups without whom a sum stays closed
    cohort: Names

    def check(self) -> None:
        """Raise ValueError, saying what is wrong, unless groups can take it.

        Whatever a server says, few groups that are left over give no sum.
        """
        groups, cohort = len(self.cohort), self.cohort
        if list(cohort) != sorted(set(cohort)):
            raise ValueError("its groups are not in order, or one is named twice")
        if groups < FEWEST_GROUPS:
            raise ValueError(
                f"it is a sum over {groups} groups, and one of fewer than {FEWEST_GROUPS} hides "
                "nothing"
            )
        if not least_threshold(groups) <= self.threshold <= groups:
            raise ValueError(
                f"its threshold is {self.threshold}, and for {groups} groups it has to be "
                f"{least_threshold(groups)} to {groups}"
            )

    @cached_property
    def context(self) -> bytes:
        """A digest that all keys of the setup, and their signatures, hold."""
        return sha256(packed("setup", *(getattr(self, name) for name in _FIELDS))).digest()

    @property
    def numbers(self) -> range:
        """Of its sums."""
        return range(self.first, self.first + self.count)


_FIELDS = tuple(Invitation.__annotations__)


@dataclass(frozen=True)
class Advertisement:
    """A group's public keys, of a setup."""

    group: Name
    weight: Annotated[int, Meta(ge=1, le=MOST_WEIGHT)]
    """What its vectors are multiplied by, before the cap on weights."""
    identity: LongKey
    encryption: Key  # c^PK, of the channel to other groups
    masks: Annotated[tuple[Key, ...], Meta(max_length=MOST_SUMS)]  # s^PK of each sum
    commitments: Annotated[tuple[Key, ...], Meta(max_length=MOST_SUMS)]  # to b of each sum
    signature: LongKey = b""

    def signed(self, context: bytes) -> tuple[object, ...]:
        """What its signature is of."""
        own = (self.group, self.weight, self.encryption, self.masks, self.commitments)
        return ("advertisement", context, *own)


@dataclass(frozen=True)
class Roll:
    """What all groups of a setup advertise, in the order of the cohort."""

    advertisements: Annotated[tuple[Advertisement, ...], Meta(max_length=MOST_GROUPS)]

    def context(self, invitation: Invitation) -> bytes:
        """A digest of the invitation and of all that the groups have signed, signatures as well."""
        return sha256(packed("roll", invitation.context, write(self))).digest()


@dataclass(frozen=True)
class Meaning:
    """What a sum is of, as each group and the server know it on their own."""

    round: int  # of the run
    digest: bytes  # of all that shapes the vectors: what was asked, sent, and set
    alike: bool
    """Whether the run's other sums with this mark are nearly the same: a difference between two of
    them, over different groups, would tell what those contributed in whom they differ."""


@dataclass(frozen=True)
class Shares:
    """What one group holds of another's secrets of a sum."""

    mask: Share  # of the seed of its mask key
    seed: Share  # of the seed b of its self mask
    piece: Seed  # of the same seed


@dataclass(frozen=True)
class Dealt:
    """A group's shares for the others, sealed: by sum and receiver, empty for itself."""

    boxes: Annotated[
        tuple[Annotated[tuple[Box, ...], Meta(max_length=MOST_GROUPS)], ...],
        Meta(max_length=MOST_SUMS),
    ]


@dataclass(frozen=True)
class MaskRequest:
    """Asks for a masked vector; with the others' sealed shares for this group."""

    number: Number
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MOST_GROUPS)]  # by sender, in order


@dataclass(frozen=True)
class AgreeRequest:
    """Says whose vectors arrived (U3), where it is not the whole cohort."""

    number: Number
    survivors: Names


@dataclass(frozen=True)
class Agreement:
    """A group's signature of the survivors."""

    signature: LongKey


@dataclass(frozen=True)
class OpenRequest:
    """Asks to open the sum of the survivors."""

    number: Number
    survivors: Names
    agreements: dict[Name, LongKey] = field(default_factory=dict)
    """Signatures of the survivors by some of them (U4); none where it is the whole cohort."""


@dataclass(frozen=True)
class Opening:
    """What a group gives to open a sum, by the groups that it holds it of."""

    seed: Seed | None  # its own b, where survivors have agreed
    lost: dict[Name, Share]  # of the mask keys of those that were lost
    seeds: dict[Name, Share]  # of b of the survivors
    pieces: dict[Name, Seed]  # of b of the survivors, where nobody was lost
