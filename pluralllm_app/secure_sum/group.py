"""A group's half of secure sums.

It follows figure 4 of Bonawitz et al., CCS 2017 (IACR ePrint 2017/281), with its signatures; rounds
and sets have its names in the docstrings below. What differs, and why it may:

*U1 = U2 = the cohort.* A setup in which a group is lost is begun anew without it. So everybody
knows the cohort before anything is masked, and each signature of survivors holds it.

*Masks and signatures of survivors hold what is summed,* with all that the groups have signed of the
setup, see `keys`. A signature fits no other setup of the same run, such as one after a memory was
lost.

*Keys are made for many sums at once, and each sum has its own.* What opens a sum, such as the mask
key of a lost group, opens no other. A group masks no sum, and opens none, that it has masked or
opened before, nor one before that, as far as its memory says. Where that was lost, keys are fresh,
and nothing that was signed before fits them.

*Where nobody was lost, groups do not sign the survivors.* A group that is told that the survivors
are the whole cohort gives shares of the seeds b alone, without asking for signatures. Let n groups
be in the cohort, n_c of them in league with the server, 2 t > n + n_c, and u an honest one. To
unmask u the server needs its b and t shares of its mask key. An honest group gives the latter only
for survivors without u which t groups have signed, of which at least t - n_c are honest.

- A group signs once in a sum, and does not sign what it was asked to open as a whole, nor the other
  way round. Of the n - n_c honest groups then at most n - t have opened the whole. With those in
  league these are n - t + n_c < t, too few for b by Shamir's shares; and its pieces take all
  groups, while those who signed give none.
- Survivors with u need the signatures of t - n_c honest groups as well, and 2 (t - n_c) > n - n_c:
  there are not enough honest groups for both. So no group gives u's b, or a share of it, for signed
  survivors either.

So of each honest group the server gets b, or the mask key, or neither, and the latter of all that
are not among the one set of survivors that was signed: it opens the sum of these, or of the whole.
`tests/secure_sum/test_adversary.py` lets a server in league with groups try.

*Each survivor gives its own b, once it has seen t signatures of the survivors*, which spares the
server most of the work of putting shares together. By the second argument above it may. It gives
no b of its own where it is told that nobody was lost: nothing has been signed then, and a server
that tells it so, and the others that it was lost, would unmask it.

*Pieces.* b is shared out a second time, in pieces of which it takes all, for the same reason.

*Commitments.* A group advertises a commitment to each b, and its public mask key is one to the
other secret. So a wrong share, or a wrong secret, is found out instead of giving a wrong sum.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum.checks import (
    RefusedSumError,
    check_agreements,
    check_invitation,
    check_roll,
    check_survivors,
)
from pluralllm_app.secure_sum.fixed_point import Words
from pluralllm_app.secure_sum.memory import Masked, Memory, MemoryFile, Secrets, Setup
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
    Shares,
    read,
    write,
)
from pluralllm_app.secure_sum.shares import in_pieces, is_share, new_seed, share_out
from pluralllm_app.secure_sum.signing import Identity


class GroupHalf:
    """A group's half of the sums of a run.

    Args:
        identity: of the group.
        file: where its secrets lie between messages; one message is answered at a time.
    """

    def __init__(self, identity: Identity, file: MemoryFile) -> None:
        self._identity = identity
        self._file = file

    @property
    def group(self) -> str:
        """Its name."""
        return self._identity.group

    @property
    def known(self) -> int | None:
        """How many groups it knows the keys of, itself among them; None in a simulation."""
        peers = self._identity.peers
        return None if peers is None else len({*peers, self.group})

    @property
    def place(self) -> Path:
        """The directory of its memory."""
        return self._file.path.parent

    def advertise(self, invitation: Invitation, weight: int) -> Advertisement:
        """Round 0, advertise keys: make the keys and secrets of some sums.

        Args:
            invitation: which sums, and with whom.
            weight: what this group's vectors are multiplied by.

        Raises:
            RefusedSumError: the invitation is none that a group can take, or of a number that was
                set up before, or names a group whose key this one does not know.
        """
        with self._file.alone():
            memory = self._file.read()
            check_invitation(invitation, memory, self._identity)
            context, encryption = invitation.context, X25519PrivateKey.generate()
            secrets = {number: Secrets(new_seed(), new_seed()) for number in invitation.numbers}
            own = Advertisement(
                group=self.group,
                weight=weight,
                identity=self._identity.public,
                encryption=keys.public_bytes(encryption),
                masks=tuple(
                    keys.public_bytes(keys.mask_key(each.mask, context, number, self.group))
                    for number, each in secrets.items()
                ),
                commitments=tuple(
                    keys.commitment(each.seed, context, number, self.group)
                    for number, each in secrets.items()
                ),
            )
            own = replace(own, signature=self._identity.sign(*own.signed(context)))
            setup = Setup(invitation, own, encryption.private_bytes_raw(), secrets)
            self._file.write(replace(memory, last=invitation.numbers[-1], setup=setup, masked=None))
            return own

    def deal(self, roll: Roll) -> Dealt:
        """Round 1, share keys: share out the secrets of all sums among the groups of a roll.

        Raises:
            RefusedSumError: there is no setup, or it was dealt before; the roll is not of its
                cohort, or an advertisement is not signed by the group it is of.
        """
        with self._file.alone():
            memory = self._file.read()
            setup = memory.setup
            if setup is None or setup.roll:
                raise RefusedSumError("shares were dealt before, or there are none to deal")
            check_roll(roll, setup, self._identity)
            everyone, context = roll.advertisements, roll.context(setup.invitation)
            encryption = X25519PrivateKey.from_private_bytes(setup.encryption)
            secrets, boxes = {}, []
            for number, each in setup.secrets.items():
                shares = _shares(each, setup.invitation.threshold, len(everyone))
                boxes.append(
                    tuple(
                        b""
                        if other.group == self.group
                        else keys.seal(
                            encryption,
                            other.encryption,
                            write(share),
                            *(context, number, self.group, other.group),
                        )
                        for share, other in zip(shares, everyone, strict=True)
                    )
                )
                own = shares[setup.invitation.cohort.index(self.group)]
                secrets[number] = replace(each, own=own)
            setup = replace(setup, secrets=secrets, roll=everyone)
            self._file.write(replace(memory, setup=setup))
            return Dealt(tuple(boxes))

    def weights(self, number: int) -> dict[str, int]:
        """The weights of all groups of the cohort, by name, as they advertised them for a sum.

        Raises:
            RefusedSumError: the sum was not set up, or is used up.
        """
        return {each.group: each.weight for each in self._ready(self._file.read(), number).roll}

    def threshold(self, number: int) -> int:
        """How many groups at least are in a sum that is opened.

        Raises:
            RefusedSumError: the sum was not set up, or is used up.
        """
        return self._ready(self._file.read(), number).invitation.threshold

    def mask(self, request: MaskRequest, meaning: Meaning, vector: Words) -> Words:
        """Round 2, masked input collection: use a sum up.

        Args:
            request: which, and the others' shares of their secrets.
            meaning: what the sum is of, as this group was told.
            vector: to add up.

        Returns:
            x_u + PRG(b_u) + the sum over later groups v of PRG(s_uv) - that over earlier ones.

        Raises:
            RefusedSumError: the sum was not set up, or is used up; the run was in a later round; a
                share cannot be decrypted, or is none.
        """
        with self._file.alone():
            memory = self._file.read()
            setup = self._ready(memory, request.number)
            if memory.opened and meaning.round < max(memory.opened):
                raise RefusedSumError(
                    f"round {meaning.round} comes after round {max(memory.opened)}, whose sum was "
                    "opened"
                )
            own = setup.secrets[request.number]
            assert own.own is not None, "dealt with the roll"
            shares = {self.group: own.own, **self._unsealed(setup, request)}
            length = len(vector)
            context = keys.sum_context(setup.context, request.number, meaning.digest, length)
            masked = Masked(request.number, meaning, context, own.seed, shares)
            left = {
                number: each for number, each in setup.secrets.items() if number > request.number
            }
            setup_left = replace(setup, secrets=left)
            self._file.write(replace(memory, setup=setup_left, masked=masked))
            return vector + self._mask(setup, own, masked, length)

    def agree(self, request: AgreeRequest) -> Agreement:
        """Round 3, consistency check: sign who is left, once in a sum.

        Raises:
            RefusedSumError: this group has not masked the sum, or has signed other survivors, or
                opened it; it is not among the survivors, or these are too few, or not of the
                cohort, or the cohort itself, or others than the same round was opened with.
        """
        with self._file.alone():
            memory = self._file.read()
            setup, masked = self._masked(memory, request.number)
            survivors = request.survivors
            check_survivors(survivors, memory, setup, masked)
            if survivors == setup.invitation.cohort:
                raise RefusedSumError("there is nothing to agree on where nobody was lost")
            if masked.agreed is not None:
                raise RefusedSumError("it has signed who is left of this sum before")
            self._file.write(replace(memory, masked=replace(masked, agreed=survivors)))
            return Agreement(self._identity.sign("survivors", masked.context, survivors))

    def open(self, request: OpenRequest) -> Opening:
        """Round 4, unmasking: give what opens the sum of the survivors, once.

        Raises:
            RefusedSumError: as in `agree`; or the survivors are not those that this group has
                signed, or fewer than the threshold have signed them.
        """
        with self._file.alone():
            memory = self._file.read()
            setup, masked = self._masked(memory, request.number)
            survivors, cohort = request.survivors, setup.invitation.cohort
            check_survivors(survivors, memory, setup, masked)
            whole = survivors == cohort
            if whole and masked.agreed is not None:
                raise RefusedSumError("it has signed that a group was lost from this sum")
            if not whole:
                check_agreements(request, setup, masked)
            self._file.write(
                Memory(
                    last=memory.last,
                    setup=setup if setup.secrets else None,
                    opened={masked.meaning.round: survivors},
                    alike=survivors if masked.meaning.alike else memory.alike,
                )
            )
            held = masked.held
            return Opening(
                seed=None if whole else masked.seed,
                lost={name: held[name].mask for name in cohort if name not in survivors},
                seeds={name: held[name].seed for name in survivors},
                pieces={name: held[name].piece for name in survivors} if whole else {},
            )

    def _ready(self, memory: Memory, number: int) -> Setup:
        """The setup of a sum that can be masked."""
        setup = memory.setup
        if setup is None or not setup.roll or number not in setup.secrets:
            raise RefusedSumError(f"sum {number} was not set up, or it is used up")
        return setup

    def _masked(self, memory: Memory, number: int) -> tuple[Setup, Masked]:
        """What is known of a sum whose vector was sent, and which was not opened."""
        if memory.setup is None or memory.masked is None or memory.masked.number != number:
            raise RefusedSumError(f"it has not masked sum {number}, or has opened it before")
        return memory.setup, memory.masked

    def _unsealed(self, setup: Setup, request: MaskRequest) -> dict[str, Shares]:
        """The others' shares for this group."""
        if len(request.boxes) != len(setup.roll):
            raise RefusedSumError("the server has shares of another number of groups")
        place = setup.invitation.cohort.index(self.group)
        encryption = X25519PrivateKey.from_private_bytes(setup.encryption)
        found: dict[str, Shares] = {}
        for other, box in zip(setup.roll, request.boxes, strict=True):
            if other.group == self.group:
                continue
            where = (setup.context, request.number, other.group, self.group)
            try:
                shares = read(Shares, keys.unseal(encryption, other.encryption, box, *where))
            except (ValueError, InvalidTag):
                raise RefusedSumError(
                    f"the shares of {other.group!r} do not decrypt: they were changed, or the two "
                    "were shown other keys or weights"
                ) from None
            if not (is_share(shares.mask, place) and is_share(shares.seed, place)):
                raise RefusedSumError(f"the shares of {other.group!r} are for another group")
            found[other.group] = shares
        return found

    def _mask(self, setup: Setup, own: Secrets, masked: Masked, length: int) -> Words:
        """All masks that this group puts on a vector."""
        invitation, number, context = setup.invitation, masked.number, masked.context
        private = keys.mask_key(own.mask, invitation.context, number, self.group)
        mask = keys.self_mask(own.seed, context, self.group, length).copy()
        at = number - invitation.first
        for other in setup.roll:
            if other.group == self.group:
                continue
            names = (self.group, other.group)
            shared = keys.pair_mask(private, other.masks[at], names, context, length)
            if self.group < other.group:
                np.add(mask, shared, out=mask)
            else:
                np.subtract(mask, shared, out=mask)
        return mask


def _shares(own: Secrets, threshold: int, groups: int) -> list[Shares]:
    """A group's shares of its secrets, for each group of the cohort in order."""
    masks = share_out(own.mask, threshold, groups)
    seeds = share_out(own.seed, threshold, groups)
    return [
        Shares(mask, seed, piece)
        for mask, seed, piece in zip(masks, seeds, in_pieces(own.seed, groups), strict=True)
    ]
