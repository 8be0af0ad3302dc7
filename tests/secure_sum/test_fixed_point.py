"""Numbers as whole numbers modulo 2^64."""

import numpy as np
import pytest

from pluralllm_app.errors import FederationError
from pluralllm_app.secure_sum.fixed_point import Layout

SHAPES = {"a": (2,), "b": (1, 3)}


def test_bits_leave_room_for_the_sum_over_all_groups() -> None:
    layout = Layout.of(SHAPES, {"a": 1.0, "b": 1024.0}, groups=8)
    # 8 groups of at most 1 are below 2^4, of at most 1024 below 2^14: 62 bits hold both.
    assert layout.bits == {"a": 58, "b": 48}
    assert layout.length == 6
    full = {"a": np.full(2, -1.0), "b": np.full((1, 3), 1024.0)}
    total = np.sum([layout.encode(full)] * 8, axis=0, dtype=np.uint64)
    found = layout.decode(total, 8)
    np.testing.assert_array_equal(found["a"], [-8, -8])
    np.testing.assert_array_equal(found["b"], [[8192, 8192, 8192]])


def test_a_sum_is_off_by_no_more_than_half_a_step_a_group() -> None:
    layout = Layout.of({"a": (1000,)}, {"a": 2.0**30}, groups=100)
    step = 2.0 ** -layout.bits["a"]
    assert step == 2**-25
    rng = np.random.default_rng(0)
    arrays = [{"a": rng.normal(size=1000)} for _ in range(100)]
    total = np.sum([layout.encode(each) for each in arrays], axis=0, dtype=np.uint64)
    exact = np.sum([each["a"] for each in arrays], axis=0)
    assert np.abs(layout.decode(total, 100)["a"] - exact).max() <= 100 * step / 2 + 1e-12


def test_the_order_of_groups_changes_no_bit() -> None:
    layout = Layout.of({"a": (50,)}, {"a": 10.0}, groups=30)
    rng = np.random.default_rng(1)
    vectors = [layout.encode({"a": rng.normal(size=50)}) for _ in range(30)]
    forward, backward = (np.zeros(51, np.uint64) for _ in range(2))
    for vector in vectors:
        forward += vector
    for vector in reversed(vectors):
        backward += vector
    np.testing.assert_array_equal(forward, backward)


@pytest.mark.parametrize("number", [1.5, -1.5, np.nan, np.inf, -np.inf])
def test_a_number_without_room_is_refused_by_name(number: float) -> None:
    layout = Layout.of({"gram": (2,)}, {"gram": 1.0}, groups=3)
    with pytest.raises(FederationError, match="this group's gram has a number above 1,"):
        layout.encode({"gram": np.array([0.0, number])})


def test_a_total_of_another_number_of_groups_is_refused() -> None:
    layout = Layout.of({"a": (1,)}, {"a": 1.0}, groups=3)
    total = layout.encode({"a": np.zeros(1)}) + layout.encode({"a": np.zeros(1)})
    with pytest.raises(FederationError, match="do not cancel"):
        layout.decode(total, 3)


def test_a_sum_so_coarse_that_small_numbers_are_lost_is_refused() -> None:
    """A server could choose a bound by which the numbers of all groups but one are rounded to 0."""
    assert Layout.of({"a": (1,)}, {"a": 2.0**51}, groups=4).bits == {"a": 8}
    with pytest.raises(ValueError, match=r"4\.5036e\+15 is too large a bound for a sum over 4"):
        Layout.of({"a": (1,)}, {"a": 2.0**52}, groups=4)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.inf, np.nan])
def test_a_bound_has_to_bound(bound: float) -> None:
    with pytest.raises(ValueError, match="bounds nothing"):
        Layout.of({"a": (1,)}, {"a": bound}, groups=3)
