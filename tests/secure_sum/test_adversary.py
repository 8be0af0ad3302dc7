"""A server in league with groups, which asks the others for whatever it likes, in any order.

To unmask one of the others it needs both the seed b of its self mask and its mask key. It must not
get both, whatever it does; and where it has one of them of everybody, and so can open a sum, that
is over enough groups. Nor must it open two sums whose difference tells what one group added.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pluralllm_app.secure_sum.checks import RefusedSumError
from pluralllm_app.secure_sum.memory import Masked
from pluralllm_app.secure_sum.messages import (
    AgreeRequest,
    Meaning,
    OpenRequest,
    least_threshold,
)
from pluralllm_app.secure_sum.server import ReadySums
from tests.support.secure_sums import Cohort, meant

Survivors = tuple[str, ...]


@dataclass
class League:
    """A server and the first groups of a cohort, after all vectors of a sum were sent.

    Args:
        cohort: of the sum.
        count: how many groups are in league.
        ready: the setup of it.
        meaning: what it is of.
        number: of it.
    """

    cohort: Cohort
    count: int
    ready: ReadySums
    meaning: Meaning
    number: int = 1
    signatures: dict[Survivors, dict[str, bytes]] = field(default_factory=dict)
    seeds: set[str] = field(default_factory=set)  # whose b was told by itself
    seed_shares: dict[str, set[str]] = field(default_factory=dict)  # who gave a share of whose b
    pieces: dict[str, set[str]] = field(default_factory=dict)
    mask_shares: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vectors, of = self.cohort.vectors(), self.meaning
        self.context = self.cohort.mask(self.ready, self.number, vectors, of=of).context
        for name in self.members:
            for other in self.masked(name).held:
                self.seed_shares.setdefault(other, set()).add(name)
                self.pieces.setdefault(other, set()).add(name)
                self.mask_shares.setdefault(other, set()).add(name)

    @property
    def members(self) -> Survivors:
        return self.cohort.names[: self.count]

    @property
    def others(self) -> Survivors:
        return self.cohort.names[self.count :]

    def masked(self, name: str) -> Masked:
        masked = self.cohort.files[name].read().masked
        assert masked is not None
        return masked

    def agree(self, name: str, survivors: Survivors) -> None:
        """Let one of the others sign survivors, if it does."""
        try:
            found = self.cohort.half(name).agree(AgreeRequest(self.number, survivors))
        except RefusedSumError:
            return
        self.signatures.setdefault(survivors, {})[name] = found.signature

    def open(self, name: str, survivors: Survivors) -> None:
        """Let one of the others open the sum of survivors, if it does, with all signatures."""
        agreements = dict(self.signatures.get(survivors, {}))
        content = ("survivors", self.context, survivors)
        for member in set(self.members) & set(survivors):
            agreements[member] = self.cohort.identities[member].sign(*content)
        if survivors == self.cohort.names:
            agreements = {}
        try:
            request = OpenRequest(self.number, survivors, agreements)
            found = self.cohort.half(name).open(request)
        except RefusedSumError:
            return
        if found.seed is not None:
            self.seeds.add(name)
        for what, given_of in (
            (self.seed_shares, found.seeds),
            (self.pieces, found.pieces),
            (self.mask_shares, found.lost),
        ):
            for other in given_of:
                what.setdefault(other, set()).add(name)

    def knows_seed(self, name: str) -> bool:
        """Whether it can compute b of one of the others."""
        shares, pieces = self.seed_shares.get(name, set()), self.pieces.get(name, set())
        enough = len(shares) >= self.cohort.threshold or len(pieces) == len(self.cohort.names)
        return name in self.seeds or enough

    def knows_mask_key(self, name: str) -> bool:
        """Whether it can compute the mask key of one of the others."""
        return len(self.mask_shares.get(name, set())) >= self.cohort.threshold

    def unmasks(self, name: str) -> bool:
        """Whether it can take all masks off the vector of one of the others."""
        return self.knows_seed(name) and self.knows_mask_key(name)

    def opens(self) -> Survivors | None:
        """Of which groups it can open a sum, its own among them; None: of none."""
        if not all(self.knows_seed(name) or self.knows_mask_key(name) for name in self.others):
            return None
        return self.members + tuple(filter(self.knows_seed, self.others))


@st.composite
def attacks(draw: Any) -> tuple[int, int, list[tuple[str, str, Survivors]]]:
    """Groups, how many are in league, and what the others are asked: step, name, survivors."""
    groups = draw(st.integers(3, 8))
    threshold = least_threshold(groups)
    league = draw(st.integers(0, 2 * threshold - groups - 1))
    names = tuple("abcdefgh"[:groups])
    target = names[-1]

    def left(without: Sequence[str]) -> Survivors:
        if not without:
            return names
        gone = draw(st.sets(st.sampled_from(without), max_size=groups - threshold))
        return tuple(name for name in names if name not in gone)

    with_target = draw(st.sampled_from([names, left(names[league:-1])]))
    without_target = tuple(name for name in left(names[league:-1]) if name != target)
    if len(without_target) < threshold:
        without_target = names[:-1]
    asked = []
    for name in draw(st.permutations(names[league:])):
        sets = draw(st.permutations([with_target, without_target]))
        asked += [("agree", name, survivors) for survivors in sets]
    for name in draw(st.permutations(names[league:])):
        sets = draw(st.permutations([with_target, without_target]))
        asked += [("open", name, survivors) for survivors in sets]
    if draw(st.booleans()):  # in any order at all
        asked = draw(st.permutations(asked))
    return groups, league, asked


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(attacks())
def test_no_server_gets_both_secrets_of_a_group(
    attack: tuple[int, int, list[tuple[str, str, Survivors]]],
) -> None:
    groups, count, asked = attack
    with tempfile.TemporaryDirectory() as place:
        cohort = Cohort(Path(place), groups)
        league = League(cohort, count, cohort.ready(count=1), meant(1))
        for step, name, survivors in asked:
            (league.agree if step == "agree" else league.open)(name, survivors)
        assert not any(map(league.unmasks, league.others))
        assert len(league.opens() or cohort.names) >= cohort.threshold


@pytest.mark.parametrize(("count", "unmasked"), [(1, False), (2, True)])
def test_half_of_the_groups_in_league_are_too_many(
    tmp_path: Path, count: int, unmasked: bool
) -> None:
    """Of 4 groups 3 open a sum: 2 * 3 > 4 + 1, and not > 4 + 2. So the attack itself is good.

    The target is told that nobody was lost, and gives its own share of its b; the others are told
    that it was lost.
    """
    cohort = Cohort(tmp_path, 4)
    league = League(cohort, count, cohort.ready(count=1), meant(1))
    target, without = "d", ("a", "b", "c")
    for name in league.others[:-1]:
        league.agree(name, without)
        league.open(name, without)
    league.open(target, league.cohort.names)
    assert league.unmasks(target) == unmasked


@st.composite
def pairs(draw: Any) -> tuple[int, int, bool, bool, list[bool]]:
    """Groups, how many are in league, whether sums are of one round or alike, and the first whole.

    Then which of the others are asked to open the first.
    """
    groups = draw(st.integers(4, 7))  # with 3, all have to be in each sum
    count = draw(st.integers(0, 2 * least_threshold(groups) - groups - 1))
    asked = draw(st.lists(st.booleans(), min_size=groups - count, max_size=groups - count))
    return groups, count, draw(st.booleans()), draw(st.booleans()), asked


def ask_all(league: League, survivors: Survivors, names: Sequence[str]) -> None:
    """Let these of the others sign and open a sum of survivors, if they do."""
    for name in names:
        league.agree(name, survivors)
    for name in names:
        league.open(name, survivors)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(pairs())
@example((4, 0, False, True, [True, True, True, True]))
@example((7, 2, True, False, [True, True, True, True, False]))
def test_no_server_opens_two_sums_that_one_group_is_the_difference_of(
    attack: tuple[int, int, bool, bool, list[bool]],
) -> None:
    """Of one round, or alike; some of the others have opened the first, and all may the second."""
    groups, count, alike, whole_first, asked = attack
    with tempfile.TemporaryDirectory() as place:
        cohort = Cohort(Path(place), groups)
        ready, survivors = cohort.ready(), [cohort.names, cohort.names[:-1]]
        first, second = survivors if whole_first else survivors[::-1]
        before = League(cohort, count, ready, meant(1, alike=alike))
        ask_all(
            before, first, [n for n, is_asked in zip(before.others, asked, strict=True) if is_asked]
        )
        after = League(cohort, count, ready, meant(2 if alike else 1, alike=alike), number=2)
        ask_all(after, second, after.others)
        assert before.opens() in (None, first)
        assert after.opens() in (None, second)
        assert None in (before.opens(), after.opens())
        if all(asked):
            assert before.opens() == first
        if not any(asked):
            assert after.opens() == second
