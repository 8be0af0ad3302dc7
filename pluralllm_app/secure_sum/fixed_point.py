"""Arrays as vectors of whole numbers modulo 2^64, so that their sums are exact in any order.

A number x becomes round(x 2^bits). `bits` is as large as it can be so that the sum over all groups
of the cohort stays below 2^63, given a bound of one group's |x|, and it follows from the bound and
the number of groups alone: every group and the server come to the same. Each group's number is off
by at most 2^-(bits + 1), and a sum by the groups times that.

The first number of a vector is 1 for each group, so that a total says how many groups are in it:
masks that do not cancel would leave a random number there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.errors import FederationError

Words = NDArray[np.uint64]
Doubles = NDArray[np.float64]

_MOST_BITS = 62  # of what the numbers of all groups add up to
_FEWEST_BITS = 8  # after the point: with fewer, numbers of some groups would be rounded to 0


@dataclass(frozen=True)
class Field:
    """One array of a vector."""

    shape: tuple[int, ...]
    bound: float  # of the absolute values of one group
    bits: int  # after the point

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """What the numbers of a vector are.

    Args:
        fields: the arrays by name, in the order in which they stand in a vector.
        groups: of the cohort, whose sum has to have room.
    """

    fields: Mapping[str, Field]
    groups: int

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        bounds: Mapping[str, float],
        groups: int,
    ) -> "Layout":
        """A layout of arrays by name, with bounds of one group's absolute values.

        Raises:
            ValueError: a bound is not positive and finite, or so large that the sum would be
                coarse.
        """
        fields = {
            name: Field(shapes[name], bounds[name], _bits(bounds[name], groups))
            for name in sorted(shapes)
        }
        return cls(fields, groups)

    @property
    def length(self) -> int:
        """How many words a vector has."""
        return 1 + sum(field.size for field in self.fields.values())

    @property
    def bits(self) -> dict[str, int]:
        """By array: a group's numbers are multiples of 2^-bits."""
        return {name: field.bits for name, field in self.fields.items()}

    def encode(self, arrays: Mapping[str, NDArray[np.generic]]) -> Words:
        """One group's arrays as a vector.

        Raises:
            FederationError: a number is above its bound or not finite; it names the array.
        """
        parts = [np.ones(1, np.int64)]
        for name, field in self.fields.items():
            numbers = np.asarray(arrays[name], np.float64).reshape(-1)
            # Not how large it is: that goes to the server.
            if not (np.abs(numbers) <= field.bound).all():
                raise FederationError(
                    f"this group's {name} has a number above {field.bound:g}, for which its secure "
                    "sum has no room: nothing was sent. Numbers of this size come of a run that "
                    "diverges, so lower its learning rates"
                )
            parts.append(np.rint(np.ldexp(numbers, field.bits)).astype(np.int64))
        return np.concatenate(parts).view(np.uint64)

    def decode(self, total: Words, groups: int) -> dict[str, Doubles]:
        """The sums of so many groups' arrays.

        Raises:
            FederationError: the total is not that of so many groups.
        """
        numbers = total.view(np.int64)
        if numbers[0] != groups:
            raise FederationError(
                f"the masks of a secure sum over {groups} groups do not cancel: a group has sent "
                "a wrong vector or a wrong key. Nothing was learned from it, and it cannot be "
                "used"
            )
        arrays, start = {}, 1
        for name, field in self.fields.items():
            part = numbers[start : start + field.size].astype(np.float64)
            arrays[name] = np.ldexp(part, -field.bits).reshape(field.shape)
            start += field.size
        return arrays


def _bits(bound: float, groups: int) -> int:
    if not (0 < bound < math.inf):
        raise ValueError(f"{bound} bounds nothing")
    _, exponent = math.frexp(bound * groups)  # bound * groups < 2^exponent
    bits = _MOST_BITS - exponent
    if bits < _FEWEST_BITS:
        raise ValueError(f"{bound:g} is too large a bound for a sum over {groups} groups")
    return bits
