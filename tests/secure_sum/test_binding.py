"""Attacks of a server that tells groups different things, replays signatures, or has keys copied.

Each of them gave one group's vector away while masks and signatures held the invitation alone.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.errors import FederationError
from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum.checks import RefusedSumError
from pluralllm_app.secure_sum.fixed_point import Layout
from pluralllm_app.secure_sum.messages import (
    MOST_WEIGHT,
    Advertisement,
    AgreeRequest,
    OpenRequest,
    Roll,
    read,
    write,
)
from pluralllm_app.secure_sum.server import ReadySums, ServerSum
from tests.support.secure_sums import Cohort, meant

LAYOUT = Layout.of({"cross": (4,)}, {"cross": 100.0}, 4)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path, 4, known=True)


def test_groups_that_were_told_different_things_have_masks_that_do_not_cancel(
    cohort: Cohort,
) -> None:
    """The others were made to send zeros, so that the total would be the vector of "a"."""
    ready, mine = cohort.ready(), LAYOUT.encode({"cross": np.array([1.5, -2.0, 3.25, 4.0])})
    others, told = LAYOUT.encode({"cross": np.zeros(4)}), meant(1, b"what others were sent")
    whole = ServerSum(ready, 1, told, LAYOUT.length)
    for name in cohort.names:
        request = cohort.ask(ready, 1, name)
        own = (meant(1, b"what a was sent"), mine) if name == "a" else (told, others)
        whole.add(name, cohort.half(name).mask(request, *own))
    with pytest.raises(FederationError, match="do not cancel"):
        LAYOUT.decode(whole.total(cohort.open(whole, {})), 4)


def test_the_beginning_of_a_longer_vector_does_not_open(cohort: Cohort) -> None:
    """One group was asked for another, shorter vector, of the same sum."""
    ready, short, whole = cohort.ready(), cohort.vectors(1, 5), cohort.vectors(2, 9)
    server = ServerSum(ready, 1, meant(1), 5)
    for name in cohort.names:
        vector = whole[name] if name == "a" else short[name]
        server.add(name, cohort.half(name).mask(cohort.ask(ready, 1, name), meant(1), vector)[:5])
    total = server.total(cohort.open(server, {}))
    opened = whole["a"][:5] + short["b"] + short["c"] + short["d"]
    assert (total != opened).all()


def test_signatures_of_survivors_fit_no_other_setup_of_the_same_sums(cohort: Cohort) -> None:
    """After the memories of a run are lost, its setup can be repeated, with the same invitation."""
    everyone, without_d, without_a = cohort.names, ("a", "b", "c"), ("b", "c", "d")
    first = cohort.ready()
    whole = cohort.mask(first, 1, cohort.vectors(), lost="d")
    old = {name: each.signature for name, each in cohort.agree(whole).items()}
    for file in cohort.files.values():
        file.path.unlink()
    again = cohort.ready()
    assert again.invitation == first.invitation
    for name in everyone:
        cohort.half(name).mask(cohort.ask(again, 1, name), meant(1), cohort.vectors()[name])
    cohort.half("a").agree(AgreeRequest(1, without_d))
    with pytest.raises(RefusedSumError, match="has not signed who is said to be left"):
        cohort.half("a").open(OpenRequest(1, without_d, old))
    new = {
        name: cohort.half(name).agree(AgreeRequest(1, without_a)).signature for name in without_a
    }
    assert not {*old.values()} & {*new.values()}


def test_a_key_gives_each_pair_of_groups_its_own_mask() -> None:
    one, other = (keys.mask_key(bytes([seed] * 31), b"", 1, "x") for seed in (1, 2))
    public = keys.public_bytes(other)
    with_a, with_c = (keys.pair_mask(one, public, ("b", name), b"", 50) for name in "ac")
    assert (with_a != with_c).all()
    back = keys.pair_mask(other, keys.public_bytes(one), ("a", "b"), b"", 50)
    assert (back == with_a).all()


def test_one_group_cannot_sign_two_weights(cohort: Cohort) -> None:
    """The others would round their numbers to 0, and the total be that of "a"."""
    invitation = cohort.invitation()
    roll = cohort.advertise(invitation)
    heavy = replace(roll.advertisements[3], weight=MOST_WEIGHT)
    heavy = replace(heavy, signature=cohort.identities["d"].sign(*heavy.signed(invitation.context)))
    other = Roll((*roll.advertisements[:3], heavy))
    dealt = {name: cohort.half(name).deal(other if name == "b" else roll) for name in "abc"}
    dealt["d"] = cohort.half("d").deal(roll)
    ready = ReadySums(invitation, roll, dealt)
    with pytest.raises(RefusedSumError, match=r"the shares of 'b' do not decrypt.*other keys"):
        cohort.half("a").mask(cohort.ask(ready, 1, "a"), meant(1), cohort.vectors()["a"])


def test_a_weight_is_one_that_a_questionnaire_can_give(cohort: Cohort) -> None:
    own = cohort.half("a").advertise(cohort.invitation(), MOST_WEIGHT)
    assert read(Advertisement, write(own)) == own
    for weight in (0, MOST_WEIGHT + 1):
        with pytest.raises(ValueError, match=r"Expected `int` .=") as error:
            read(Advertisement, write(replace(own, weight=weight)))
        assert "weight" in str(error.value)
