"""How many people are behind shares that are exact quotients of counts.

Shares that were divided and never rounded or weighted give their counts away, up to a common
divisor: 0.2861..., 0.5328... and 0.1809... are 87, 162 and 55 of 304 people, or of 608, 912, ...

That k random counts have the greatest common divisor c has the probability c^-k / zeta(k), so that
on average over c, 1 / n is (zeta(k + 1) / zeta(k)) / (fewest people). What is inferred for n is the
inverse of that: 1.37 times the fewest for two options, 1.11 times for three. The noise of a share,
which goes with 1 / n, is then right on average, although n is not right of any single answer.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

MOST = 20_000  # people in a group: the whole panel has fewer
EXACT = 1e-12  # how near a quotient of counts is to a share in double precision
ROUNDED = 10_000  # shares that are multiples of 1 / ROUNDED may have been rounded
UNKNOWN = float("nan")


def infer_people(answers: Sequence[Sequence[float]]) -> list[float]:
    """Infer the number of people behind each answer from its shares.

    Returns:
        For each answer NaN, or a number of people, which need not be whole. All are NaN unless
        every answer is an exact quotient of counts up to MOST and most shares are no short
        decimals: rounded shares would look like those of 100 people. An answer in which everybody
        picked the same option tells nothing.
    """
    shares = np.array([share for answer in answers for share in answer])
    inner = shares[(shares > 0) & (shares < 1)] * ROUNDED
    if not len(inner) or (np.abs(inner - np.rint(inner)) < 1e-6).mean() > 0.5:
        return [UNKNOWN] * len(answers)
    fewest = [_fewest(answer) for answer in answers]
    if None in fewest:
        return [UNKNOWN] * len(answers)
    return [
        UNKNOWN if picked < 2 else (count or 1) * _zeta(picked) / _zeta(picked + 1)
        for count, picked in zip(fewest, (sum(s > 0 for s in own) for own in answers), strict=True)
    ]


def _fewest(shares: Sequence[float]) -> int | None:
    """Return the fewest people who give exactly these shares; None if more than MOST."""
    people = 1
    for share in shares:
        quotient = Fraction(share).limit_denominator(MOST)
        people = math.lcm(people, quotient.denominator)
        if people > MOST or abs(quotient - Fraction(share)) > EXACT:
            return None
    return people


def _zeta(power: int) -> float:
    """Riemann's zeta function; its terms beyond 1,000 are negligible from power 2 on."""
    return float((np.arange(1.0, 1001.0) ** -power).sum())
