"""Intervals that cover what they say: their widths come from groups that predicted themselves.

A train group, without what it contributed, predicts some of its answers from others and counts how
many standard deviations each answer is off. The counts are summed over groups, and their quantiles
are the widths of intervals. So neither a normal distribution nor the model's variances, which come
from answers that it was fitted to, are taken on trust.

Names of dimensions: N numbers of context questions, B bins, L levels.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import LEVELS
from pluralllm_app.predictors.factors.model import Belief

CONTEXTS = (0, 5, 20, 100)  # numbers of context questions at which groups check themselves
EDGES = np.linspace(0.0, 8.0, 161)  # in standard deviations; what is further off is in the last bin
BINS = len(EDGES) - 1


def count_errors(belief: Belief, shares: Doubles, noise: Doubles) -> Doubles:
    """Count answers by how far they are off, in standard deviations of y: [B], summing to 1.

    Args:
        belief: what was predicted of T option rows.
        shares: [T] of the group; where it hides them by noise, the noised ones.
        noise: [T] by how much that has raised the variance of y. Intervals are for true shares.
    """
    off = np.abs(belief.coordinates(shares) - belief.mean) / np.sqrt(belief.variance + noise)
    counts, _ = np.histogram(np.minimum(off, EDGES[-1]), EDGES)
    return counts / max(len(off), 1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How many standard deviations wide an interval is."""

    widths: Doubles  # [N, L] for each of CONTEXTS and LEVELS

    @classmethod
    def of(cls, counts: Doubles) -> "Calibration":
        """Read the widths off counts [N, B].

        Where nothing was counted, they are those of the nearest number of context questions at
        which something was; the normal's, if nothing was at all.
        """
        widths = np.tile(
            [NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS], (len(counts), 1)
        )
        known = np.flatnonzero(counts.sum(axis=1) > 0)
        for at, row in enumerate(widths if len(known) else []):
            counted = counts[known[np.abs(known - at).argmin()]]
            row[:] = np.interp(LEVELS, np.cumsum([0.0, *counted]) / counted.sum(), EDGES)
        return cls(widths)

    def at(self, context: int) -> Doubles:
        """The widths [L] for a number of context questions, interpolated over log(1 + number)."""
        places = np.log1p(CONTEXTS)
        return np.array([np.interp(np.log1p(context), places, column) for column in self.widths.T])
