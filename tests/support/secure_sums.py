"""Cohorts that sum securely in this process: each message travels as bytes, and can be changed."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pluralllm_app.secure_sum.fixed_point import Words
from pluralllm_app.secure_sum.group import GroupHalf
from pluralllm_app.secure_sum.memory import MemoryFile
from pluralllm_app.secure_sum.messages import (
    Advertisement,
    Agreement,
    AgreeRequest,
    Dealt,
    Invitation,
    MaskRequest,
    Meaning,
    Opening,
    OpenRequest,
    Roll,
    least_threshold,
    read,
    write,
)
from pluralllm_app.secure_sum.server import (
    ReadySums,
    ServerSum,
    check_advertisement,
    check_dealt,
)
from pluralllm_app.secure_sum.signing import Identity

RUN = "0" * 32
LENGTH = 5


class Cohort:
    """Groups "a", "b", ... with weights 1, 2, ..., and what an honest server does with them.

    Args:
        place: directory for their memories.
        groups: how many.
        threshold: None: the least.
        known: whether they know each other's keys beforehand.
    """

    def __init__(
        self, place: Path, groups: int, threshold: int | None = None, known: bool = False
    ) -> None:
        self.names = tuple("abcdefghijklmnop"[:groups])
        self.threshold = threshold or least_threshold(groups)
        identities = [Identity.simulated(name) for name in self.names]
        if known:
            keys = {each.group: each.key.public_key() for each in identities}
            identities = [Identity(each.group, each.key, keys) for each in identities]
        self.identities = {each.group: each for each in identities}
        self.files = {name: MemoryFile(place / name / RUN / "sums") for name in self.names}
        self.received: list[bytes] = []  # by the server

    def half(self, name: str) -> GroupHalf:
        """A group's half, as a new process of its node has it."""
        return GroupHalf(self.identities[name], self.files[name])

    def hear(self, message: Any) -> Any:
        """What the server reads of what a group sends."""
        content = write(message)
        self.received.append(content)
        return read(type(message), content)

    def invitation(self, first: int = 1, count: int = 2, **changes: Any) -> Invitation:
        """To a setup."""
        fields = {"experiment": RUN, "threshold": self.threshold, "cohort": self.names}
        return read(
            Invitation, write(Invitation(first=first, count=count, **{**fields, **changes}))
        )

    def advertise(self, invitation: Invitation) -> Roll:
        """The first exchange of a setup."""
        found, taken = [], set[bytes]()
        for weight, name in enumerate(self.names, 1):
            own: Advertisement = self.hear(self.half(name).advertise(invitation, weight))
            check_advertisement(own, name, invitation, None, taken)
            found.append(own)
        return read(Roll, write(Roll(tuple(found))))

    def ready(self, first: int = 1, count: int = 2) -> ReadySums:
        """A whole setup."""
        invitation = self.invitation(first, count)
        roll = self.advertise(invitation)
        dealt = {}
        for name in self.names:
            own: Dealt = self.hear(self.half(name).deal(roll))
            check_dealt(own, name, invitation)
            dealt[name] = own
        return ReadySums(invitation, roll, dealt)

    def ask(self, ready: ReadySums, number: int, name: str) -> MaskRequest:
        """What a group reads of the server's request."""
        return read(MaskRequest, write(ready.request(number, name)))

    def mask(
        self,
        ready: ReadySums,
        number: int,
        vectors: Mapping[str, Words],
        lost: Collection[str] = (),
        of: Meaning | None = None,
    ) -> ServerSum:
        """The exchange of masked vectors, in which groups are lost, on the way or before."""
        meaning = of or meant(number)
        whole = ServerSum(ready, number, meaning, len(next(iter(vectors.values()))))
        for name in self.names:
            request = self.ask(ready, number, name)
            masked = self.half(name).mask(request, meaning, vectors[name])
            self.received.append(masked.tobytes())
            if name not in lost:
                whole.add(name, masked)
        return whole

    def agree(self, whole: ServerSum, lost: Collection[str] = ()) -> dict[str, Agreement]:
        """The exchange of signatures."""
        found = {}
        for name in whole.survivors:
            request = read(AgreeRequest, write(whole.agree_request()))
            own: Agreement = self.hear(self.half(name).agree(request))
            whole.check_agreement(name, own)
            if name not in lost:
                found[name] = own
        return found

    def open(
        self,
        whole: ServerSum,
        agreements: Mapping[str, Agreement],
        lost: Collection[str] = (),
    ) -> dict[str, Opening]:
        """The exchange that opens a sum."""
        found = {}
        for name in whole.survivors if whole.whole else agreements:
            request = read(OpenRequest, write(whole.open_request(agreements)))
            own: Opening = self.hear(self.half(name).open(request))
            whole.check_opening(name, own)
            if name not in lost:
                found[name] = own
        return found

    def sum(
        self,
        ready: ReadySums,
        number: int,
        vectors: Mapping[str, Words],
        masked: Collection[str] = (),
        agreed: Collection[str] = (),
        opened: Collection[str] = (),
    ) -> Words:
        """A sum from which groups are lost in each of its exchanges."""
        whole = self.mask(ready, number, vectors, masked)
        agreements = {} if whole.whole else self.agree(whole, agreed)
        return whole.total(self.open(whole, agreements, opened))

    def vectors(self, seed: int = 0, length: int = LENGTH) -> dict[str, Words]:
        """Any vectors."""
        rng = np.random.default_rng(seed)
        return {
            name: rng.integers(0, 2**64, length, np.uint64, endpoint=False) for name in self.names
        }


def meant(number: int, digest: bytes = b"", alike: bool = False) -> Meaning:
    """What the sum of a round is of."""
    return Meaning(number, digest, alike)


def plain(vectors: Mapping[str, Words], lost: Collection[str] = ()) -> Words:
    """The sum of the vectors of those that are left."""
    left = [vector for name, vector in vectors.items() if name not in lost]
    total: Words = np.sum(left, axis=0, dtype=np.uint64)
    return total
