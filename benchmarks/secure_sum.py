"""Secure sums against plain ones: seconds and bytes, for cohorts of some sizes.

    python benchmarks/secure_sum.py
    python benchmarks/secure_sum.py --groups 3 8 --words 100000

Of each cohort one group does all of its work: keys, shares, the masked vector, and its part of what
opens the sum. The others have keys and hand it shares that open the sum as real ones do, without
being shared out, which takes a cohort of 200 half an hour. The server opens the sum of all, and the
sum without one group. All of it runs in one process, without messages of Flower.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from measuring import parse, publish, seconds

from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum.fixed_point import Words
from pluralllm_app.secure_sum.group import GroupHalf
from pluralllm_app.secure_sum.memory import MemoryFile, Secrets, Setup
from pluralllm_app.secure_sum.messages import (
    Agreement,
    AgreeRequest,
    Dealt,
    Invitation,
    Meaning,
    Opening,
    Roll,
    Shares,
    least_threshold,
    read,
    write,
)
from pluralllm_app.secure_sum.server import ReadySums, ServerSum
from pluralllm_app.secure_sum.shares import SEED_BYTES, SHARE_BYTES, share_out
from pluralllm_app.secure_sum.signing import Identity

ALL, WITHOUT = "the server opens all", "the server opens all but one"
SUMS = 2  # of a setup: one that all open, one without a group


@dataclass
class Timed:
    """Seconds and bytes by what they are for."""

    seconds: dict[str, float]
    bytes: dict[str, int]

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = action()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return found


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--groups", type=int, nargs="+", default=[3, 8, 63, 200]),
            parser.add_argument("--words", type=int, default=10**6, help="of a vector"),
        ),
    )
    vector = np.arange(arguments.words, dtype=np.uint64)
    plain = vector.astype(np.float64)
    add = min(seconds(lambda: np.add(plain, plain, out=plain)) for _ in range(5))
    results: dict[str, Any] = {"words": arguments.words, "plain: adding a group, s": add}
    for groups in arguments.groups:
        with tempfile.TemporaryDirectory() as place:
            found = measure(Path(place), groups, vector)
        opened, without = found.seconds.pop(ALL), found.seconds.pop(WITHOUT, None)
        group = {name: value / SUMS for name, value in found.seconds.items()}
        rows = {
            **{f"a group {name}, s a sum": value for name, value in group.items()},
            "a group, all of it, s a sum": sum(group.values()),
            **{f"a group, {name}, bytes a sum": value for name, value in found.bytes.items()},
            "a group, bytes to plain": sum(found.bytes.values()) / plain.nbytes,
            "the server opens all, s": opened,
            **({"the server opens all but one, s": without} if without else {}),
            "the server, adding and opening, to adding": 1 + opened / (add * groups),
        }
        results |= {f"{groups} groups: {name}": value for name, value in rows.items()}
    publish("secure_sum", results, arguments.json)


def measure(place: Path, groups: int, vector: Words) -> Timed:
    """What secure sums over a cohort cost its first group, and the server."""
    names = tuple(f"group {number:03}" for number in range(groups))
    me, timed = names[0], Timed({}, {})
    identities = {name: Identity.simulated(name) for name in names}
    halves = {
        name: GroupHalf(identities[name], MemoryFile(place / name / "sums")) for name in names
    }
    invitation = Invitation("0" * 32, 1, SUMS, least_threshold(groups), names)
    advertised = {name: halves[name].advertise(invitation, 1) for name in names[1:]}
    advertised[me] = timed.run("makes keys", lambda: halves[me].advertise(invitation, 1))
    roll = Roll(tuple(advertised[name] for name in names))
    dealt = timed.run("shares secrets out", lambda: halves[me].deal(roll))
    setups = {name: known(halves[name]) for name in names}
    boxes = {name: boxes_for(me, name, setups[name], invitation, roll) for name in names[1:]}
    ready = ReadySums(invitation, roll, {me: dealt, **boxes})
    timed.bytes |= {
        "keys": (len(write(roll)) + len(write(advertised[me]))) // SUMS,
        "shares": 2 * len(write(dealt)) // SUMS,
    }
    for number in invitation.numbers:
        meaning = Meaning(number, b"", alike=False)
        whole = ServerSum(ready, number, meaning, len(vector))
        request = ready.request(number, me)
        masked = timed.run("masks", lambda: halves[me].mask(request, meaning, vector))  # noqa: B023
        whole.add(me, masked)
        left = names if number == 1 or groups == 3 else names[:-1]  # of 3, all open a sum
        for name in left[1:]:
            whole.add(name, np.zeros_like(vector))
        openings = opened(whole, halves[me], identities, setups, ready, timed)
        what = ALL if whole.whole else WITHOUT
        timed.seconds.pop(what, None)
        timed.run(what, lambda: whole.total(openings))  # noqa: B023
    timed.bytes["vector"] = masked.nbytes
    return timed


def known(half: GroupHalf) -> Setup:
    """What a group has of its setup."""
    setup = MemoryFile(half.place / "sums").read().setup
    assert setup
    return setup


def share(number: int, filling: bytes) -> bytes:
    """What looks like a share for the group at a place."""
    return (number + 1).to_bytes(4, "little") + filling[: SHARE_BYTES - 4]


def boxes_for(me: str, name: str, setup: Setup, invitation: Invitation, roll: Roll) -> Dealt:
    """What another group deals: to `me` its whole seed as a piece, to the rest nothing."""
    private = X25519PrivateKey.from_private_bytes(setup.encryption)
    mine = roll.advertisements[0].encryption
    rows = []
    for number, secrets in setup.secrets.items():
        content = write(Shares(share(0, bytes(32)), share(0, bytes(32)), secrets.seed))
        place = (roll.context(invitation), number, name, me)
        nothing = (b"",) * (len(roll.advertisements) - 1)
        rows.append((keys.seal(private, mine, content, *place), *nothing))
    return Dealt(tuple(rows))


def opened(
    whole: ServerSum,
    half: GroupHalf,
    identities: dict[str, Identity],
    setups: dict[str, Setup],
    ready: ReadySums,
    timed: Timed,
) -> dict[str, Opening]:
    """What all that are left give to open a sum; the first group's part is its own work."""
    me, *others = whole.survivors
    invitation, number = whole.invitation, whole.number
    cohort = invitation.cohort
    agreements: dict[str, Agreement] = {}
    if not whole.whole:
        asked = AgreeRequest(number, whole.survivors)
        agreements[me] = timed.run("agrees", lambda: half.agree(asked))
        content = ("survivors", whole.context, whole.survivors)
        for name in others:
            agreements[name] = Agreement(identities[name].sign(*content))
    request = whole.open_request(agreements)
    own = timed.run("opens", lambda: half.open(request))
    timed.bytes["what opens it"] = len(write(request)) + len(write(own))
    secrets: dict[str, Secrets] = {name: setups[name].secrets[number] for name in cohort}
    places = {name: cohort.index(name) for name in others}
    if whole.whole:
        mine = pieces_of(me, setups, ready, number)
        return {me: own} | {
            name: Opening(
                None,
                {},
                {each: share(places[name], bytes(32)) for each in cohort},
                {each: mine[name] if each == me else bytes(SEED_BYTES) for each in cohort},
            )
            for name in others
        }
    [lost] = {*cohort} - {*whole.survivors}
    real = share_out(secrets[lost].mask, invitation.threshold, len(cohort))
    openings = {
        name: Opening(
            secrets[name].seed,
            {lost: real[places[name]]},
            {each: share(places[name], bytes(32)) for each in whole.survivors},
            {},
        )
        for name in others
    }
    mine_opening = Opening(own.seed, {lost: real[0]}, own.seeds, {})
    return {me: mine_opening} | openings


def pieces_of(me: str, setups: dict[str, Setup], ready: ReadySums, number: int) -> dict[str, bytes]:
    """The pieces of the first group's seed that the others hold."""
    at, cohort = number - 1, ready.invitation.cohort
    mine = ready.roll.advertisements[0].encryption
    found = {}
    for place, name in enumerate(cohort):
        if name == me:
            continue
        private = X25519PrivateKey.from_private_bytes(setups[name].encryption)
        where = (ready.roll.context(ready.invitation), number, me, name)
        content = keys.unseal(private, mine, ready.dealt[me].boxes[at][place], *where)
        found[name] = read(Shares, content).piece
    return found


if __name__ == "__main__":
    main()
