"""What a server tries that wants one group's vector, and what the groups refuse."""

from dataclasses import replace
from pathlib import Path

import pytest

from pluralllm_app.secure_sum.checks import RefusedSumError
from pluralllm_app.secure_sum.messages import (
    AgreeRequest,
    OpenRequest,
    Roll,
    least_threshold,
)
from pluralllm_app.secure_sum.server import ReadySums, ServerSum
from pluralllm_app.secure_sum.signing import Identity
from tests.support.secure_sums import Cohort, meant, plain

EIGHT = tuple("abcdefgh")
WITHOUT_A = EIGHT[1:]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path, 8, known=True)


def masked(cohort: Cohort) -> tuple[ReadySums, ServerSum]:
    """A setup of two sums, and the first of these with all vectors."""
    ready = cohort.ready()
    return ready, cohort.mask(ready, 1, cohort.vectors())


def test_a_group_that_sent_its_vector_is_not_called_lost_to_its_face(cohort: Cohort) -> None:
    masked(cohort)
    with pytest.raises(RefusedSumError, match="says that it was lost"):
        cohort.half("a").agree(AgreeRequest(1, WITHOUT_A))
    with pytest.raises(RefusedSumError, match="says that it was lost"):
        cohort.half("a").open(OpenRequest(1, WITHOUT_A))


def test_nobody_gives_a_mask_key_without_signatures(cohort: Cohort) -> None:
    masked(cohort)
    with pytest.raises(RefusedSumError, match="has not signed who is said to be left"):
        cohort.half("b").open(OpenRequest(1, WITHOUT_A))
    cohort.half("b").agree(AgreeRequest(1, WITHOUT_A))
    with pytest.raises(RefusedSumError, match="too few groups have signed"):
        cohort.half("b").open(OpenRequest(1, WITHOUT_A))


def test_a_live_group_reported_as_lost_stays_masked(cohort: Cohort) -> None:
    """The others believe it; what they give does not open it, since nobody gives a share of b_a."""
    masked(cohort)
    agreements = {name: cohort.half(name).agree(AgreeRequest(1, WITHOUT_A)) for name in WITHOUT_A}
    signatures = {name: each.signature for name, each in agreements.items()}
    request = OpenRequest(1, WITHOUT_A, signatures)
    openings = [cohort.half(name).open(request) for name in WITHOUT_A]
    assert all(set(each.lost) == {"a"} for each in openings)
    assert all("a" not in each.seeds and not each.pieces for each in openings)
    for name in EIGHT:  # and nobody opens it for all of them any more
        asked = OpenRequest(1, EIGHT)
        if name == "a":
            assert cohort.half(name).open(asked).seed is None
        else:
            with pytest.raises(RefusedSumError, match="has opened it before"):
                cohort.half(name).open(asked)


def test_a_group_signs_once(cohort: Cohort) -> None:
    masked(cohort)
    cohort.half("c").agree(AgreeRequest(1, WITHOUT_A))
    with pytest.raises(RefusedSumError, match="signed who is left of this sum before"):
        cohort.half("c").agree(AgreeRequest(1, tuple("acdefgh")))


def test_who_signed_that_one_is_lost_does_not_open_the_whole(cohort: Cohort) -> None:
    """Else the server would get both kinds of shares of the same group."""
    masked(cohort)
    cohort.half("c").agree(AgreeRequest(1, WITHOUT_A))
    with pytest.raises(RefusedSumError, match="has signed that a group was lost"):
        cohort.half("c").open(OpenRequest(1, EIGHT))


def test_who_opened_the_whole_signs_nothing(cohort: Cohort) -> None:
    masked(cohort)
    cohort.half("c").open(OpenRequest(1, EIGHT))
    with pytest.raises(RefusedSumError, match="or has opened it before"):
        cohort.half("c").agree(AgreeRequest(1, WITHOUT_A))


def test_a_sum_is_opened_once(cohort: Cohort) -> None:
    _, whole = masked(cohort)
    vectors = cohort.vectors()
    assert (whole.total(cohort.open(whole, {})) == plain(vectors)).all()
    with pytest.raises(RefusedSumError, match="has opened it before"):
        cohort.half("a").open(OpenRequest(1, EIGHT))


def test_signatures_of_other_survivors_do_not_count(cohort: Cohort) -> None:
    masked(cohort)
    mine, theirs = AgreeRequest(1, WITHOUT_A), AgreeRequest(1, tuple("acdefgh"))
    signed = {name: cohort.half(name).agree(theirs).signature for name in "acdefg"}
    own = cohort.half("h").agree(mine).signature
    for agreements in (signed, {**signed, "h": own}):
        agreements = {name: each for name, each in agreements.items() if name != "a"}
        with pytest.raises(RefusedSumError, match="'c' has not signed who is said to be left"):
            cohort.half("h").open(OpenRequest(1, WITHOUT_A, agreements))
    with pytest.raises(RefusedSumError, match="a group that was lost has signed"):
        cohort.half("h").open(OpenRequest(1, WITHOUT_A, {**signed, "h": own}))


def test_survivors_are_of_the_cohort_and_enough(cohort: Cohort) -> None:
    masked(cohort)
    for survivors, error in (
        (tuple("abcde"), "5 groups are left, fewer than the threshold of 6"),
        ((*EIGHT, "z"), "not of the cohort"),
        (tuple("aabcdefgh"), "not of the cohort"),
        (tuple("bacdefgh"), "not of the cohort"),
        (EIGHT, "nothing to agree on"),
    ):
        with pytest.raises(RefusedSumError, match=error):
            cohort.half("b").agree(AgreeRequest(1, survivors))


def test_a_sum_is_masked_once_and_not_after_a_later_one(cohort: Cohort) -> None:
    ready = cohort.ready(count=3)
    vector = cohort.vectors()["a"]
    cohort.half("a").mask(cohort.ask(ready, 2, "a"), meant(1), vector)
    for number in (1, 2):
        with pytest.raises(RefusedSumError, match=f"sum {number} was not set up, or it is used up"):
            cohort.half("a").mask(cohort.ask(ready, number, "a"), meant(1), vector)


def test_a_round_that_was_opened_is_not_opened_without_one_of_them(cohort: Cohort) -> None:
    """The difference of the two sums would be that group's vector."""
    ready = cohort.ready()
    vectors = cohort.vectors()
    cohort.sum(ready, 1, vectors)
    cohort.mask(ready, 2, vectors, lost="a", of=meant(1))
    with pytest.raises(RefusedSumError, match=r"with the difference \('a'\)"):
        cohort.half("b").agree(AgreeRequest(2, WITHOUT_A))


def test_sums_that_are_alike_are_over_the_same_groups(cohort: Cohort) -> None:
    """Of the next round too: the difference would be the vector of "a", or nearly so."""
    ready, vectors = cohort.ready(count=3), cohort.vectors()
    cohort.open(cohort.mask(ready, 1, vectors, of=meant(1, alike=True)), {})
    cohort.mask(ready, 2, vectors, lost="a", of=meant(2, alike=True))
    with pytest.raises(RefusedSumError, match=r"the difference \('a'\) would be told"):
        cohort.half("b").agree(AgreeRequest(2, WITHOUT_A))
    cohort.files["b"].forget_after(-1)  # which does not make it forget that
    assert cohort.files["b"].read().alike == EIGHT
    with pytest.raises(RefusedSumError, match="was set up before"):
        cohort.half("b").advertise(cohort.invitation(3), 1)


def test_a_round_that_was_opened_may_be_repeated_with_the_same_groups(cohort: Cohort) -> None:
    ready = cohort.ready()
    vectors = cohort.vectors()
    for number in (1, 2):
        whole = cohort.mask(ready, number, vectors, of=meant(1))
        assert (whole.total(cohort.open(whole, {})) == plain(vectors)).all()


def test_an_earlier_round_does_not_come_back(cohort: Cohort) -> None:
    ready = cohort.ready()
    cohort.sum(ready, 1, cohort.vectors())
    with pytest.raises(RefusedSumError, match="round 0 comes after round 1"):
        cohort.half("a").mask(cohort.ask(ready, 2, "a"), meant(0), cohort.vectors()["a"])


# ---- Setups ----


def test_a_server_cannot_swap_keys(cohort: Cohort) -> None:
    """It has no identity of "b", and a node knows the key of the real one."""
    invitation = cohort.invitation()
    roll = cohort.advertise(invitation)
    forged = Identity.simulated("b")
    mine = replace(roll.advertisements[0], group="b", identity=forged.public)
    mine = replace(mine, signature=forged.sign(*mine.signed(invitation.context)))
    for odd, error in (
        (mine, "the identity key of 'b' is not the known one"),
        (replace(roll.advertisements[1], encryption=mine.encryption), "'b' has not signed"),
        (replace(roll.advertisements[1], masks=mine.masks), "'b' has not signed"),
        (replace(roll.advertisements[1], weight=10**6), "'b' has not signed"),
        (replace(roll.advertisements[2], group="b"), "identity key of 'b'"),
    ):
        swapped = Roll((roll.advertisements[0], odd, *roll.advertisements[2:]))
        with pytest.raises(RefusedSumError, match=error):
            cohort.half("a").deal(swapped)


def test_a_group_in_league_cannot_pass_anothers_keys_off_as_its_own(cohort: Cohort) -> None:
    """Of "a", between "b" and "c" with one key, the masks would cancel, and leave it bare."""
    invitation = cohort.invitation()
    roll = cohort.advertise(invitation)
    for copied in ("masks", "encryption"):
        theirs = getattr(roll.advertisements[1], copied)
        odd = replace(roll.advertisements[2], **{copied: theirs})
        odd = replace(odd, signature=cohort.identities["c"].sign(*odd.signed(invitation.context)))
        swapped = Roll((*roll.advertisements[:2], odd, *roll.advertisements[3:]))
        with pytest.raises(RefusedSumError, match="a group has advertised a key of another"):
            cohort.half("a").deal(swapped)


def test_a_group_sees_its_own_keys_or_deals_nothing(cohort: Cohort) -> None:
    roll = cohort.advertise(cohort.invitation())
    odd = replace(roll.advertisements[0], weight=7)
    with pytest.raises(RefusedSumError, match="other keys of its own"):
        cohort.half("a").deal(Roll((odd, *roll.advertisements[1:])))


@pytest.mark.parametrize(
    "other",
    [
        {"cohort": EIGHT[:-1]},  # the server tells "a" of other groups than the rest
        {"threshold": 7},
        {"experiment": "1" * 32},  # and shows it what others said in another run
        {"first": 2},
    ],
)
def test_all_groups_are_told_the_same(cohort: Cohort, other: dict[str, object]) -> None:
    told = cohort.invitation(**other)  # type: ignore[arg-type]
    own = cohort.half("a").advertise(told, 1)
    invitation = cohort.invitation()
    others = [cohort.half(name).advertise(invitation, 1) for name in told.cohort[1:]]
    with pytest.raises(RefusedSumError, match="'b' has not signed these keys for this run"):
        cohort.half("a").deal(Roll((own, *others)))


def test_a_roll_has_the_cohort(cohort: Cohort) -> None:
    roll = cohort.advertise(cohort.invitation())
    with pytest.raises(RefusedSumError, match="other groups than it has invited"):
        cohort.half("a").deal(Roll(roll.advertisements[:-1]))


def test_shares_are_dealt_once(cohort: Cohort) -> None:
    roll = cohort.advertise(cohort.invitation())
    cohort.half("a").deal(roll)
    with pytest.raises(RefusedSumError, match="shares were dealt before"):
        cohort.half("a").deal(roll)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"cohort": ("a", "b")}, "a sum over 2 groups"),
        ({"cohort": ("a", "c", "b")}, "not in order"),
        ({"cohort": ("a", "a", "b")}, "named twice"),
        ({"threshold": 5}, "its threshold is 5, and for 8 groups it has to be 6 to 8"),
        ({"threshold": 9}, "its threshold is 9"),
        ({"cohort": tuple("bcdefgh"), "threshold": 5}, "'a' is not in the cohort"),
        ({"cohort": (*EIGHT[:7], "z")}, "knows no key of 'z'"),
    ],
)
def test_what_no_group_accepts(cohort: Cohort, changes: dict[str, object], error: str) -> None:
    with pytest.raises(RefusedSumError, match=error):
        cohort.half("a").advertise(cohort.invitation(**changes), 1)  # type: ignore[arg-type]


def test_a_setup_is_not_repeated(cohort: Cohort) -> None:
    cohort.ready(first=1, count=2)
    for first in (1, 2):
        with pytest.raises(RefusedSumError, match=f"sum {first} was set up before"):
            cohort.half("a").advertise(cohort.invitation(first), 1)
    cohort.half("a").advertise(cohort.invitation(3), 1)


def test_shares_are_for_one_place(cohort: Cohort) -> None:
    """Another sum's, another group's, and those that "a" itself sealed."""
    ready = cohort.ready()
    vector = cohort.vectors()["a"]
    own, other = ready.request(1, "a").boxes, ready.request(2, "a").boxes
    for boxes in (
        (own[0], other[1], *own[2:]),
        (own[0], own[2], own[1], *own[3:]),
        (own[0], ready.dealt["a"].boxes[0][1], *own[2:]),
        (own[0], own[1][:-1] + bytes([own[1][-1] ^ 1]), *own[2:]),
        (own[0], b"", *own[2:]),
    ):
        request = replace(ready.request(1, "a"), boxes=boxes)
        with pytest.raises(RefusedSumError, match="the shares of 'b' do not decrypt"):
            cohort.half("a").mask(request, meant(1), vector)
    with pytest.raises(RefusedSumError, match="of another number of groups"):
        cohort.half("a").mask(replace(ready.request(1, "a"), boxes=own[:-1]), meant(1), vector)


def test_with_the_least_threshold_no_group_is_opened_in_two_ways() -> None:
    """2 t > n + n_c while no more than a third are in league; one less would be too low."""
    for groups in range(3, 200):
        threshold = least_threshold(groups)
        assert 3 <= threshold <= groups
        assert 2 * threshold > groups + groups / 3
        assert 2 * (threshold - 1) <= groups + groups / 3
