"""Noise on a group's answers, so that whatever follows hides what any one respondent answered.

The noise is drawn once, on all answers, before anything is learned. Contributions, scores and a
model are then functions of noised answers, and cost nothing more, however many rounds there are and
whatever the server asks (post-processing). Who answered which question and how much he counts is
taken as known: two data sets are neighbours if they differ in what one respondent answered.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints, segment_starts, segment_sums
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.accounting import discrete_gaussian, rho_of
from pluralllm_app.survey.content import Influence

FINE = 2.0**20  # steps of the grid that one respondent moves the answers by, without rounding
_FLOAT32 = 2.0**-23  # by so much two equal shares may differ, as they are stored

Draw = Callable[[Ints, float], Ints]
"""Adds noise of a standard deviation to whole numbers."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Shares as whole numbers of steps, and how far one respondent can move them.

    A respondent who has the part I_q of the weight of question q and changes his answer moves two
    shares by I_q, one up and one down: sqrt(2) I_q in L2 norm. With s_q steps to a share of 1 he
    moves all that he answered by at most d = sqrt(2 sum (s_q I_q)^2), over the questions with the
    largest terms, as many as one respondent answered.

    s_q = FINE / sqrt(2 I_q T), where T is the sum of the largest I_q, as many as that, makes
    (s_q I_q)^2 = FINE^2 I_q / (2 T), and therefore d = FINE. Of all choices with the same d, where
    every respondent answers everything, it has the smallest sum over q of the noise variances
    (Lagrange: they are proportional to 1 / s_q^2, and d^2 to the sum of (s_q I_q)^2).

    Each share is then rounded to a whole number of steps, which is off by half a step for either of
    two neighbours, and it was stored in single precision before: in all R rows the distance grows
    by at most the root of the sum of (1 + s_q 2^-23)^2.
    """

    steps: Doubles  # [Q] to a share of 1
    sensitivity: float  # L2 norm in steps

    @classmethod
    def of(cls, influence: Influence, options: Ints) -> "Grid":
        """The grid for the answers to questions with so many `options` [Q]."""
        largest = influence.largest
        top = np.sort(largest)[::-1][: influence.questions].sum()
        steps = FINE / np.sqrt(2 * largest * top)
        rounding = np.sqrt((options * (1 + steps * _FLOAT32) ** 2).sum())
        return cls(steps, FINE + float(rounding))

    def rounded(self, preferences: PreferenceSet) -> Ints:
        """[R] the shares in whole steps."""
        steps = np.repeat(self.steps, preferences.options)
        return np.rint(preferences.shares.astype(np.float64) * steps).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Mechanism:
    """How the answers of a group are noised."""

    grid: Grid
    scale: float  # standard deviation of the noise, in steps
    rho: float  # what a draw costs, see `accounting`

    @classmethod
    def of(cls, influence: Influence, options: Ints, epsilon: float, delta: float) -> "Mechanism":
        """That which spends (epsilon, delta) on the answers to questions with `options` [Q]."""
        grid, rho = Grid.of(influence, options), rho_of(epsilon, delta)
        return cls(grid, grid.sensitivity / np.sqrt(2 * rho), rho)

    @property
    def deviations(self) -> Doubles:
        """[Q] standard deviation of the noise on a share of each question."""
        deviations: Doubles = self.scale / self.grid.steps
        return deviations

    def draw(self, preferences: PreferenceSet, draw: Draw = discrete_gaussian) -> Ints:
        """[R] shares in steps, with noise; each call costs `rho`."""
        return draw(self.grid.rounded(preferences), self.scale)

    def readable(self, preferences: PreferenceSet, noised: Ints) -> PreferenceSet:
        """Noised shares [R] in steps as answers; of `preferences`, no shares are read.

        Shares become the nearest ones that are at least 0 and sum to 1. As many respondents are
        named as would make shares vary as much by chance as they do by the noise, so that learners
        for which small samples count for less know how little noised answers tell. Of the noise
        alone the same is said, since true answers vary without it.
        """
        shares = nearest_shares(
            noised / np.repeat(self.grid.steps, preferences.options), preferences.options
        )
        noise = self._as_many(preferences.options)
        known = preferences.respondents
        return replace(
            preferences,
            shares=shares.astype(np.float32),
            respondents=noise if known is None else 1 / (1 / known + 1 / noise),
            noise=noise,
        )

    def _as_many(self, options: Ints) -> Doubles:
        """[Q] n for which p (1 - p) / n is the variance of the noise, with p of all options alike.

        With the noised p itself, whatever the noise has raised would count for more: learned from
        such, factors were worse than without any word of the noise.
        """
        many: Doubles = (options - 1) / options**2 / self.deviations**2
        return many


def nearest_shares(values: Doubles, options: Ints) -> Doubles:
    """The shares nearest to `values` [R] by their squared distance, for each question.

    All values of a question are lowered by the same number, and what is then below 0 becomes 0
    (Held, Wolfe and Crowder 1974, Mathematical Programming 6:62).
    """
    question = np.repeat(np.arange(len(options)), options)
    starts = segment_starts(options)
    sorted_values = values[np.lexsort((-values, question))]
    sums = np.cumsum(sorted_values)
    sums -= np.repeat((sums - sorted_values)[starts], options)
    places = np.arange(len(values)) - np.repeat(starts, options) + 1
    above = segment_sums(sorted_values * places > sums - 1, options).astype(np.int64)
    above = np.maximum(above, 1)  # for values so large that they swallow the 1
    lowered = (sums[starts + above - 1] - 1) / above
    shares: Doubles = np.maximum(values - np.repeat(lowered, options), 0.0)
    return shares
