"""A server in league with groups, which asks the others for whatever it likes, in any order.

To unmask one of the others it needs both the seed b of its self mask and its mask key. It must not
get both, whatever it does; and where it has one of them of everybody, and so can open a sum, that
is over enough groups.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralllm_app.secure_sum.checks import RefusedSumError
from pluralllm_app.secure_sum.memory import Masked
from pluralllm_app.secure_sum.messages import AgreeRequest, OpenRequest, least_threshold
from tests.support.secure_sums import Cohort

Survivors = tuple[str, ...]


@dataclass
class League:
    """A server and the first groups of a cohort, after all vectors of a sum were sent.

    Args:
        cohort: of the sum.
        count: how many groups are in league.
    """

    cohort: Cohort
    count: int
    signatures: dict[Survivors, dict[str, bytes]] = field(default_factory=dict)
    seeds: set[str] = field(default_factory=set)  # whose b was told by itself
    seed_shares: dict[str, set[str]] = field(default_factory=dict)  # who gave a share of whose b
    pieces: dict[str, set[str]] = field(default_factory=dict)
    mask_shares: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ready = self.cohort.ready(count=1)
        self.context = self.cohort.mask(ready, 1, self.cohort.vectors()).context
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
            found = self.cohort.half(name).agree(AgreeRequest(1, survivors))
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
            found = self.cohort.half(name).open(OpenRequest(1, survivors, agreements))
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

    def opens(self) -> int | None:
        """Of how many groups it can open a sum, its own among them; None: of none."""
        if not all(self.knows_seed(name) or self.knows_mask_key(name) for name in self.others):
            return None
        return self.count + sum(map(self.knows_seed, self.others))


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


@settings(max_examples=20, deadline=None)
@given(attacks())
def test_no_server_gets_both_secrets_of_a_group(
    attack: tuple[int, int, list[tuple[str, str, Survivors]]],
) -> None:
    groups, count, asked = attack
    with tempfile.TemporaryDirectory() as place:
        league = League(Cohort(Path(place), groups), count)
        for step, name, survivors in asked:
            (league.agree if step == "agree" else league.open)(name, survivors)
        assert not any(map(league.unmasks, league.others))
        assert (league.opens() or groups) >= league.cohort.threshold


@pytest.mark.parametrize(("count", "unmasked"), [(1, False), (2, True)])
def test_half_of_the_groups_in_league_are_too_many(
    tmp_path: Path, count: int, unmasked: bool
) -> None:
    """Of 4 groups 3 open a sum: 2 * 3 > 4 + 1, and not > 4 + 2. So the attack itself is good.

    The target is told that nobody was lost, and gives its own share of its b; the others are told
    that it was lost.
    """
    league = League(Cohort(tmp_path, 4), count)
    target, without = "d", ("a", "b", "c")
    for name in league.others[:-1]:
        league.agree(name, without)
        league.open(name, without)
    league.open(target, league.cohort.names)
    assert league.unmasks(target) == unmasked
