"""Which answers would tell most about a group: those after which its others are least uncertain.

Beliefs are Gaussian, so how uncertain an answer leaves the others does not depend on what it is:
the best questions are known before the first is asked. They are chosen one after another, each the
one after which the variance of all target rows, summed, has dropped most, in units of its cost
(greedy; cf. Krause, Singh and Guestrin 2008, JMLR 9:235). That a question's own answer is known
once it is asked counts for nothing.

Names of dimensions: R candidate rows of Q questions, n options, T target rows, F features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts
from pluralllm_app.predictors.factors.posterior import ByFeatures
from pluralllm_app.predictors.factors.text_kernel import OptionRows


@dataclass(frozen=True)
class Choice:
    """A question that was chosen."""

    place: int  # among the candidates
    explained: float  # part of the targets' variance that it and those before it take away, 0 to 1


def choose(
    belief: ByFeatures,
    candidates: tuple[Ints, OptionRows],
    target: tuple[Ints, OptionRows],
    wanted: Bools,
    costs: Doubles,
) -> Iterator[Choice]:
    """Choose questions one after another, until all are chosen or none tells anything more.

    Args:
        belief: about the group, from the answers that are known.
        candidates: rows [R] of whole questions, and their text.
        target: rows [T] of the questions that one wants to know, and their text; where these are
            the candidates, pass the same tuple, so that features are computed once.
        wanted: [Q] whether each candidate is among these.
        costs: [Q] of asking each candidate, above 0.
    """
    options = candidates[1].options
    _, x, alone = belief.features(*candidates)
    noise = alone + belief.group.factors.variances.noise
    aim, aim_alone = (x, alone) if target is candidates else belief.features(*target)[1:]
    total = float(((aim @ belief.covariance) * aim).sum() + aim_alone.sum())
    # x C and x C (aim^T aim), of which C shrinks with each answer.
    known = x @ belief.covariance
    towards = known @ (aim.T @ aim)
    starts = segment_starts(options)
    blocks = {int(n): np.flatnonzero(options == n) for n in np.unique(options)}
    unasked, explained = np.ones(len(options), bool), 0.0
    while unasked.any():
        gains = np.zeros(len(options))
        for n, places in blocks.items():
            rows = starts[places][:, None] + np.arange(n)
            own = known[rows] @ x[rows].transpose(0, 2, 1)  # [q, n, n]
            drop = towards[rows] @ known[rows].transpose(0, 2, 1)
            drop -= wanted[places][:, None, None] * (own @ own.transpose(0, 2, 1))
            inner = own + noise[rows][:, :, None] * np.eye(n)
            gains[places] = np.trace(np.linalg.solve(inner, drop), axis1=1, axis2=2)
        gains[~unasked] = 0.0
        chosen = int(np.argmax(gains / costs))
        if gains[chosen] <= 0:
            return
        unasked[chosen] = False
        explained += float(gains[chosen]) / total
        rows = starts[chosen] + np.arange(options[chosen])
        inner = known[rows] @ x[rows].T + np.diag(noise[rows])
        weights = np.linalg.solve(inner, x[rows] @ known.T).T  # [R, n]
        known, towards = known - weights @ known[rows], towards - weights @ towards[rows]
        yield Choice(chosen, explained)
