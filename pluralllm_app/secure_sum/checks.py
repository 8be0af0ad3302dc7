"""What a group checks before it answers a server, which may say anything."""

from pluralllm_app.errors import RefusedError
from pluralllm_app.secure_sum.keys import gives_a_secret
from pluralllm_app.secure_sum.memory import Masked, Memory, Setup
from pluralllm_app.secure_sum.messages import Advertisement, Invitation, OpenRequest, Roll
from pluralllm_app.secure_sum.signing import Identity, has_signed


class RefusedSumError(RefusedError):
    """A group does not do what a server asks of it, since it could give its contribution away.

    Args:
        why: in words that may reach the server.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"this group takes no part in a secure sum: {why}")


def check_invitation(invitation: Invitation, memory: Memory, identity: Identity) -> None:
    """Raise RefusedSumError unless a group can take part in a setup."""
    try:
        invitation.check()
    except ValueError as error:
        raise RefusedSumError(str(error)) from error
    if identity.group not in invitation.cohort:
        raise RefusedSumError(f"{identity.group!r} is not in the cohort")
    if invitation.first <= memory.last:
        raise RefusedSumError(f"sum {invitation.first} was set up before")
    if identity.peers is None:
        return
    unknown = sorted({*invitation.cohort} - {identity.group, *identity.peers})
    if unknown:
        raise RefusedSumError(
            f"this node knows no key of {', '.join(map(repr, unknown))}, and a server could stand "
            "in for them"
        )


def check_roll(roll: Roll, setup: Setup, identity: Identity) -> None:
    """Raise RefusedSumError unless each group of the cohort has signed what a roll says of it."""
    invitation, everyone = setup.invitation, roll.advertisements
    if tuple(each.group for each in everyone) != invitation.cohort:
        raise RefusedSumError("the server shows it other groups than it has invited")
    for each in everyone:
        if each.group == identity.group and each != setup.own:
            raise RefusedSumError("the server shows it other keys of its own")
        if not identity.knows(each.group, each.identity):
            raise RefusedSumError(f"the identity key of {each.group!r} is not the known one")
        if not has_signed(each.identity, each.signature, *each.signed(invitation.context)):
            raise RefusedSumError(
                f"{each.group!r} has not signed these keys for this run, these groups, sums and "
                "threshold"
            )
        try:
            check_keys(each, invitation)
        except ValueError as error:
            raise RefusedSumError(
                f"of {each.group!r} the server shows what is odd: {error}"
            ) from error
    public = [key for each in everyone for key in (each.encryption, *each.masks)]
    if len(set(public)) < len(public):
        raise RefusedSumError("a group has advertised a key of another, or one twice")


def check_keys(advertisement: Advertisement, invitation: Invitation) -> None:
    """Raise ValueError, saying what is wrong, unless the keys are usable, and for all sums."""
    masks, commitments = advertisement.masks, advertisement.commitments
    if not len(masks) == len(commitments) == invitation.count:
        raise ValueError("it advertises keys for another number of sums")
    public = (advertisement.encryption, *masks)
    if len(set(public)) < len(public):
        raise ValueError("it advertises a key twice")
    if not all(map(gives_a_secret, public)):
        raise ValueError("it advertises a key that gives no secret")


def check_survivors(
    survivors: tuple[str, ...], memory: Memory, setup: Setup, masked: Masked
) -> None:
    """Raise RefusedSumError unless a sum may be opened for these groups, were they agreed on."""
    invitation = setup.invitation
    if list(survivors) != sorted(set(survivors)) or not {*survivors} <= {*invitation.cohort}:
        raise RefusedSumError("those who are said to be left are not of the cohort")
    if setup.own.group not in survivors:
        raise RefusedSumError("it has sent its vector, and the server says that it was lost")
    if len(survivors) < invitation.threshold:
        raise RefusedSumError(
            f"{len(survivors)} groups are left, fewer than the threshold of {invitation.threshold}"
        )
    if masked.meaning.alike and memory.alike not in (None, survivors):
        odd = ", ".join(map(repr, sorted({*memory.alike} ^ {*survivors})))
        raise RefusedSumError(
            "all sums of this run that are nearly the same are over the same groups, and the "
            f"difference ({odd}) would be told"
        )
    number = masked.meaning.round
    before = memory.opened.get(number, survivors)
    if before != survivors:
        odd = ", ".join(map(repr, sorted({*before} ^ {*survivors})))
        raise RefusedSumError(
            f"a sum of round {number} was opened before, and with the difference ({odd}) "
            "it would tell of single groups"
        )


def check_agreements(request: OpenRequest, setup: Setup, masked: Masked) -> None:
    """Raise RefusedSumError unless enough groups, and this one, have signed who is left."""
    if masked.agreed != request.survivors:
        raise RefusedSumError("it has not signed who is said to be left")
    if not {*request.agreements} <= {*request.survivors}:
        raise RefusedSumError("a group that was lost has signed who is left")
    invitation = setup.invitation
    public = {each.group: each.identity for each in setup.roll}
    content = ("survivors", masked.context, request.survivors)
    for name, signature in request.agreements.items():
        if not has_signed(public[name], signature, *content):
            raise RefusedSumError(f"{name!r} has not signed who is said to be left")
    if len(request.agreements) < invitation.threshold:
        raise RefusedSumError("too few groups have signed who is said to be left")
