"""The server's half of secure sums; see `group` for the protocol.

It checks what groups send, so that one that sends something odd counts as lost, and is not what
ends the sum of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pluralllm_app.errors import FederationError
from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum.checks import check_keys
from pluralllm_app.secure_sum.fixed_point import Words
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
)
from pluralllm_app.secure_sum.shares import is_share, join_pieces, put_together
from pluralllm_app.secure_sum.signing import has_signed


def check_advertisement(
    advertisement: Advertisement,
    group: str,
    invitation: Invitation,
    identity: bytes | None,
    taken: set[bytes],
) -> None:
    """Check a group's answer to an invitation as all other groups will.

    Args:
        advertisement: the answer.
        group: who gave it.
        invitation: what it answers.
        identity: the group's public key; None, in a simulation: it is believed.
        taken: keys that groups of this setup have advertised; those of this one are added.

    Raises:
        ValueError: saying what is wrong.
    """
    if advertisement.group != group:
        raise ValueError("it advertises keys of another group")
    if identity not in (None, advertisement.identity):
        raise ValueError("its identity key is not the registered one")
    check_keys(advertisement, invitation)
    public = {advertisement.encryption, *advertisement.masks}
    if public & taken:
        raise ValueError("it advertises a key of another group")
    content = advertisement.signed(invitation.context)
    if not has_signed(advertisement.identity, advertisement.signature, *content):
        raise ValueError("it has not signed its keys")
    taken |= public


def check_dealt(dealt: Dealt, group: str, invitation: Invitation) -> None:
    """Raise ValueError, saying what is wrong, unless a group has dealt shares to all others."""
    if len(dealt.boxes) != invitation.count:
        raise ValueError("it deals shares for another number of sums")
    for boxes in dealt.boxes:
        others = [name for name, box in zip(invitation.cohort, boxes, strict=False) if box]
        if len(boxes) != len(invitation.cohort) or {*others} != {*invitation.cohort} - {group}:
            raise ValueError("it deals shares to other groups than those of the cohort")


@dataclass(frozen=True)
class ReadySums:
    """Some sums whose keys are known and whose shares are dealt."""

    invitation: Invitation
    roll: Roll
    dealt: Mapping[str, Dealt]  # by sender

    def request(self, number: int, group: str) -> MaskRequest:
        """What asks a group for its masked vector."""
        invitation = self.invitation
        at, place = number - invitation.first, invitation.cohort.index(group)
        boxes = (self.dealt[name].boxes[at][place] for name in invitation.cohort)
        return MaskRequest(number, tuple(boxes))


class ServerSum:
    """One sum: adds masked vectors up, and takes the masks off the total.

    Args:
        ready: the setup of it.
        number: of the sum.
        meaning: what it is of, as the groups are told.
        length: of the vectors.
    """

    def __init__(self, ready: ReadySums, number: int, meaning: Meaning, length: int) -> None:
        self.invitation = ready.invitation
        self.number = number
        setup = ready.roll.context(ready.invitation)
        self.context = keys.sum_context(setup, number, meaning.digest, length)
        self._total = np.zeros(length, np.uint64)
        self._survivors: list[str] = []
        at = number - ready.invitation.first
        roll = ready.roll.advertisements
        self._identities = {each.group: each.identity for each in roll}
        self._masks = {each.group: each.masks[at] for each in roll}
        self._commitments = {each.group: each.commitments[at] for each in roll}

    def add(self, group: str, masked: Words) -> None:
        """Round 2: a group's masked vector has arrived.

        Raises:
            ValueError: it is no vector of this sum, or another one came before.
        """
        if masked.dtype != np.uint64 or masked.shape != self._total.shape:
            raise ValueError(
                f"its masked vector is {masked.dtype} {masked.shape}, and not of "
                f"{len(self._total)} words"
            )
        if group in self._survivors:
            raise ValueError("it has sent a masked vector before")
        np.add(self._total, masked, out=self._total)
        self._survivors.append(group)

    @property
    def survivors(self) -> tuple[str, ...]:
        """U3: the groups whose vectors are in the total, sorted."""
        return tuple(sorted(self._survivors))

    @property
    def whole(self) -> bool:
        """Whether nobody was lost."""
        return self.survivors == self.invitation.cohort

    def check_enough(self, count: int, what: str) -> None:
        """Raise FederationError where so few groups are left that the sum stays closed."""
        if count < self.invitation.threshold:
            raise FederationError(
                f"{what}: {count} of {len(self.invitation.cohort)} groups, fewer than the "
                f"secure-threshold of {self.invitation.threshold}, without whom the sum stays "
                "closed"
            )

    def agree_request(self) -> AgreeRequest:
        """Round 3: asks survivors to sign who is left."""
        return AgreeRequest(self.number, self.survivors)

    def check_agreement(self, group: str, agreement: Agreement) -> None:
        """Raise ValueError unless a group has signed who is left."""
        content = ("survivors", self.context, self.survivors)
        if not has_signed(self._identities[group], agreement.signature, *content):
            raise ValueError("it has not signed who is left")

    def open_request(self, agreements: Mapping[str, Agreement]) -> OpenRequest:
        """Round 4: asks survivors to open the sum.

        Args:
            agreements: good ones; none are needed where nobody was lost.

        Raises:
            FederationError: they are fewer than the threshold.
        """
        if self.whole:
            return OpenRequest(self.number, self.survivors)
        self.check_enough(len(agreements), "too few groups have agreed on who is left of a sum")
        signatures = {name: each.signature for name, each in agreements.items()}
        return OpenRequest(self.number, self.survivors, signatures)

    def check_opening(self, group: str, opening: Opening) -> None:
        """Raise ValueError unless an opening has what it must have of a group."""
        survivors, cohort = {*self.survivors}, self.invitation.cohort
        place = cohort.index(group)
        if {*opening.lost} != {*cohort} - survivors or {*opening.seeds} != survivors:
            raise ValueError("it opens the sum for other groups than those that are left")
        if {*opening.pieces} != (survivors if self.whole else set()):
            raise ValueError("it has pieces of other groups than those that are left")
        if not all(
            is_share(share, place) for share in (*opening.lost.values(), *opening.seeds.values())
        ):
            raise ValueError("it opens the sum with shares of another group")

    def total(self, openings: Mapping[str, Opening]) -> Words:
        """The sum of the survivors' vectors.

        Args:
            openings: good ones, by group (U5).

        Raises:
            FederationError: they are fewer than the threshold, or their shares belong to no
                secret.
        """
        self.check_enough(len(openings), "too few groups have opened a sum")
        context, length = self.context, len(self._total)
        total = self._total.copy()
        for name in self.survivors:
            seed = self._seed(name, openings)
            np.subtract(total, keys.self_mask(seed, context, name, length), out=total)
        for name in sorted({*self.invitation.cohort} - {*self.survivors}):
            private = self._mask_key(name, openings)
            for other in self.survivors:
                names = (name, other)
                shared = keys.pair_mask(private, self._masks[other], names, context, length)
                # `other` has added it where it comes before `name`, and subtracted it else.
                unmask = np.subtract if other < name else np.add
                unmask(total, shared, out=total)
        return total

    def _seed(self, name: str, openings: Mapping[str, Opening]) -> bytes:
        """The seed b of a survivor: its own word, or pieces, or shares."""
        own = openings[name].seed if name in openings else None
        if own is not None and self._is_seed(name, own):
            return own
        if self.whole and len(openings) == len(self.invitation.cohort):
            joined = join_pieces([each.pieces[name] for each in openings.values()])
            if self._is_seed(name, joined):
                return joined
        seed = self._put_together({each: found.seeds[name] for each, found in openings.items()})
        if seed is None or not self._is_seed(name, seed):
            raise self._no_secret("the seed", name, openings)
        return seed

    def _is_seed(self, name: str, seed: bytes) -> bool:
        context = self.invitation.context
        return keys.commitment(seed, context, self.number, name) == self._commitments[name]

    def _mask_key(self, name: str, openings: Mapping[str, Opening]) -> X25519PrivateKey:
        """The private mask key of a group that was lost."""
        seed = self._put_together({each: found.lost[name] for each, found in openings.items()})
        if seed is not None:
            private = keys.mask_key(seed, self.invitation.context, self.number, name)
            if keys.public_bytes(private) == self._masks[name]:
                return private
        raise self._no_secret("the mask key", name, openings)

    def _put_together(self, shares: Mapping[str, bytes]) -> bytes | None:
        cohort, threshold = self.invitation.cohort, self.invitation.threshold
        by_place = {cohort.index(name): share for name, share in shares.items()}
        return put_together(by_place, threshold)

    def _no_secret(self, what: str, name: str, openings: Mapping[str, Opening]) -> FederationError:
        return FederationError(
            f"the shares of {what} of {name!r} in sum {self.number} give another one than it "
            f"advertised: {name!r} has dealt wrong shares, or one of "
            f"{', '.join(map(repr, openings))} has changed its own"
        )
