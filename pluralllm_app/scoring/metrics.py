"""How well predicted shares agree with true ones, and how equally well for all groups.

Shares are flat: the options of question 0, then of question 1, ...; `options` [Q] holds the
option counts. Everything is computed in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.segments import Doubles, Ints, segment_sums
from pluralllm_app.survey.info import METRICS


def js_alignment(predicted: ArrayLike, true: ArrayLike, options: Ints) -> Doubles:
    """Alignment score 1 - JS distance of each question, [Q] (arXiv 2503.09925, section IV).

    The distance is the square root of the divergence in nats, so that the worst score is
    1 - sqrt(ln 2) = 0.167.
    """
    return 1.0 - np.sqrt(js_divergence(predicted, true, options))


def wasserstein_alignment(
    predicted: ArrayLike, true: ArrayLike, options: Ints, values: ArrayLike
) -> Doubles:
    """Alignment score 1 - W1 / (largest - smallest value) of each question, [Q], in 0 to 1.

    W1 is the 1-Wasserstein distance over the options' ordinal values [R], as for OpinionQA
    (Santurkar et al. 2023).
    """
    question = np.repeat(np.arange(len(options)), options)
    position = np.asarray(values, np.float64)
    order = np.lexsort((position, question))
    position = position[order]
    difference = (np.asarray(predicted, np.float64) - np.asarray(true, np.float64))[order]
    running = np.cumsum(difference)
    ends = np.cumsum(options) - 1
    before = np.concatenate([[0.0], running[ends[:-1]]])
    cumulative = running - np.repeat(before, options)
    # There is no step from the last option of a question to the first of the next question.
    step = np.diff(position, append=position[-1:])
    step[ends] = 0.0
    span = position[ends] - position[ends - options + 1]
    distance: Doubles = segment_sums(np.abs(cumulative) * step, options) / span
    return 1.0 - distance


def alignment(
    metric: str,
    predicted: ArrayLike,
    true: ArrayLike,
    options: Ints,
    values: ArrayLike | None = None,
) -> Doubles:
    """Alignment score of each question, [Q], under the survey's `metric`, one of its METRICS."""
    if metric == "wasserstein":
        if values is None:
            raise ValueError("the Wasserstein score needs the options' ordinal values")
        return wasserstein_alignment(predicted, true, options, values)
    if metric != "jensen-shannon":
        raise ValueError(f"unknown metric {metric!r}: known are {', '.join(METRICS)}")
    return js_alignment(predicted, true, options)


def coefficient_of_variation(scores: ArrayLike) -> float:
    """Population standard deviation over mean of the groups' scores [G]; 0 where all are 0."""
    values = np.asarray(scores, np.float64)
    mean = values.mean()
    return float(values.std() / mean) if mean else 0.0


def fairness_index(scores: ArrayLike) -> float:
    """FI = 1 / (1 + CoV^2) of scores [G] (arXiv 2503.09925): Jain's index, from 1/G to 1."""
    return 1.0 / (1.0 + coefficient_of_variation(scores) ** 2)


@dataclass(frozen=True)
class GroupScores:
    """The alignment score of each question that one group was scored on."""

    questions: Ints  # [Q] index of each question in the survey
    scores: Doubles  # [Q] alignment of each

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


def fairness_per_question(groups: Mapping[str, GroupScores]) -> float | None:
    """Mean over questions of the FI over the groups that answered them (arXiv 2512.08786).

    Questions that were scored for a single group are left out; None where all of them were.
    """
    question = np.concatenate([group.questions for group in groups.values()])
    score = np.concatenate([group.scores for group in groups.values()])
    _, position, count = np.unique(question, return_inverse=True, return_counts=True)
    shared = count > 1
    if not shared.any():
        return None
    total = np.bincount(position, score)[shared]
    squares = np.bincount(position, score**2)[shared]
    # 1 / (1 + CoV^2) = mean^2 / mean of squares; groups that all score 0 are treated alike.
    ratio = np.divide(total**2, count[shared] * squares, out=np.ones_like(total), where=squares > 0)
    return float(ratio.mean())
