"""Sums over groups that are lost at any time, and what the server knows of them."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralllm_app.errors import FederationError
from pluralllm_app.secure_sum.messages import least_threshold
from tests.support.secure_sums import Cohort, plain


def test_a_sum_of_three(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, 3)
    vectors = {name: np.array([number], np.uint64) for name, number in dict(a=5, b=7, c=11).items()}
    ready = cohort.ready()
    assert cohort.sum(ready, 1, vectors).tolist() == [23]
    vectors["a"] = np.array([2**64 - 1], np.uint64)  # which is -1
    assert cohort.sum(ready, 2, vectors).tolist() == [17]


def test_the_next_setup_goes_on(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, 4)
    for first in (1, 3):
        ready = cohort.ready(first)
        for number in ready.invitation.numbers:
            vectors = cohort.vectors(number)
            assert (cohort.sum(ready, number, vectors) == plain(vectors)).all()


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ({"masked": "c"}, "abdefgh"),
        ({"masked": "ah"}, "bcdefg"),
        ({"masked": "c", "agreed": "d"}, "abdefgh"),
        ({"masked": "c", "opened": "d"}, "abdefgh"),  # the others have shares of d's b
        ({"opened": "ah"}, "abcdefgh"),
    ],
)
def test_the_sum_of_those_whose_vectors_arrived(
    tmp_path: Path, lost: dict[str, str], left: str
) -> None:
    cohort = Cohort(tmp_path, 8)
    assert cohort.threshold == 6
    vectors = cohort.vectors()
    expected = plain({name: vectors[name] for name in left})
    assert (cohort.sum(cohort.ready(), 1, vectors, **lost) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "error"),
    [
        ({"agreed": "de", "masked": "c"}, "agreed on who is left of a sum: 5 of 8 groups"),
        ({"opened": "abc"}, "opened a sum: 5 of 8 groups, fewer than the secure-threshold of 6"),
        ({"masked": "c", "opened": "de"}, "opened a sum: 5 of 8 groups"),
    ],
)
def test_too_few_groups_leave_a_sum_closed(
    tmp_path: Path, lost: dict[str, str], error: str
) -> None:
    cohort = Cohort(tmp_path, 8)
    with pytest.raises(FederationError, match=error):
        cohort.sum(cohort.ready(), 1, cohort.vectors(), **lost)


@st.composite
def histories(draw: Any) -> tuple[int, int, int, list[set[str]]]:
    """A number of groups, a threshold, a seed, and who is lost in each exchange of a sum."""
    groups = draw(st.integers(3, 9))
    threshold = draw(st.integers(least_threshold(groups), groups))
    left, lost = list("abcdefghi"[:groups]), []
    for _ in range(3):
        gone = draw(st.sets(st.sampled_from(left), max_size=len(left) - threshold))
        lost.append(gone)
        left = [name for name in left if name not in gone]
    return groups, threshold, draw(st.integers(0, 2**32)), lost


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(histories())
def test_the_sum_of_masked_vectors_is_that_of_plain_ones(
    history: tuple[int, int, int, list[set[str]]],
) -> None:
    groups, threshold, seed, (masked, agreed, opened) = history
    with tempfile.TemporaryDirectory() as place:
        cohort = Cohort(Path(place), groups, threshold)
        vectors = cohort.vectors(seed)
        found = cohort.sum(cohort.ready(count=1), 1, vectors, masked, agreed, opened)
    assert (found == plain(vectors, masked)).all()
