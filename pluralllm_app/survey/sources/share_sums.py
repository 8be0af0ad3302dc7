"""Whether the shares of each answer sum to 1, or to 100 if they are percentages.

Published shares are rounded, each by up to half a unit of its last digit. So the tolerance grows
with the number of shares and shrinks with their digits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts, segment_sums

TOLERANCE = 0.02  # at least, as a part of the whole
MOST_DIGITS = 3  # more make no difference
PART = 2**20  # shares looked at in one step


@dataclass(frozen=True)
class Sums:
    """The sums of the answers' shares, and which of them are wrong."""

    whole: int  # 1 or 100: what most of them sum to
    sums: Doubles  # [A]
    wrong: Ints  # indices of answers that sum to something else

    @property
    def kind(self) -> str:
        """What the shares are called."""
        return "shares" if self.whole == 1 else "percentages"

    def fault(self) -> str:
        """Say what is wrong with the first wrong answer, and the remedy."""
        found = float(self.sums[self.wrong[0]])
        others = len(self.wrong) < len(self.sums)
        if others and abs(found * self.whole / 100 - 1) < 0.05:
            return f"they sum to {found:.6g}: shares and percentages are mixed, write all alike"
        if any(abs(found / whole - 2) < TOLERANCE for whole in (1, 100)):
            return (
                f"they sum to {found:.6g}, twice the whole: remove the rows of a total, if there "
                "are any among the options"
            )
        if not others and found > 2:
            return (
                f"they sum to {found:.6g}: if they are numbers of people, call the column 'count'"
            )
        return f"they sum to {found:.6g}, which rounding does not explain: mend them"

    def notes(self) -> list[str]:
        """Say what was understood, as far as it is unusual."""
        notes = ["percentages"] if self.whole == 100 else []
        low, high = self.sums.min() / self.whole, self.sums.max() / self.whole
        if max(1 - low, high - 1) > 0.001:
            notes.append(f"rounded shares, which sum to between {low:.3f} and {high:.3f}, rescaled")
        return notes


def judge_sums(shares: Doubles, lengths: Ints, given: Doubles, percent: bool) -> Sums:
    """Compare sums with what they should be.

    Args:
        shares: flat, 0 where none was given.
        lengths: [A] how many of them an answer has, at least one.
        given: [A] how many of them were given.
        percent: whether they are known to be percentages; if not, most answers decide.
    """
    sums = segment_sums(shares, lengths)
    near = {whole: _near(sums, whole, TOLERANCE * whole) for whole in (1, 100)}
    if not near[1].all() and not near[100].all():
        for whole, fewest in ((1, 1), (100, 0)):  # fewest digits; whole shares are no rounded ones
            rounding = _rounding(shares, lengths, given, fewest)
            near[whole] |= _near(sums, whole, rounding)
    most = 100 if percent or near[100].sum() > near[1].sum() else 1
    return Sums(most, sums, np.flatnonzero(~near[most]))


def _near(sums: Doubles, whole: int, tolerance: Doubles | float) -> Bools:
    near: Bools = np.abs(sums - whole) <= tolerance * (1 + 1e-9)  # 0.98 is not quite 1 - 0.02
    return near


def _rounding(shares: Doubles, lengths: Ints, given: Doubles, fewest: int) -> Doubles:
    """Return by how much rounding may change the sum of each answer."""
    digits = _digits(shares)
    usual = int(np.argmax(np.bincount(digits[shares > 0], minlength=1)))
    most = np.maximum.reduceat(digits, segment_starts(lengths))
    places = np.maximum(most, max(usual, fewest))
    return np.where(places < MOST_DIGITS, 0.5 * given * 10.0**-places, 0)


def _digits(shares: Doubles) -> NDArray[np.int8]:
    """Return how many decimals each share has, at most MOST_DIGITS."""
    digits = np.full(len(shares), MOST_DIGITS, np.int8)
    for start in range(0, len(shares), PART):
        part, own = shares[start : start + PART], digits[start : start + PART]
        for places in range(MOST_DIGITS - 1, -1, -1):
            scaled = part * 10**places
            own[np.abs(scaled - np.rint(scaled)) < 1e-6] = places
    return digits
