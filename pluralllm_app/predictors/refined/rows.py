"""What factors predict of a task, row by row, as the network on top of them sees it.

Names of dimensions: C context and T target rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Floats
from pluralllm_app.predictors.base import Prediction
from pluralllm_app.predictors.factors.model import Belief
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.preferences import PreferenceSet, QuestionSet

FEATURES = 6  # F
SPREAD = 5.0  # times a standard deviation of a root share, which is about 0.1
OFF = 3.0  # standard deviations that count as 1


@dataclass(frozen=True, eq=False)
class Seen:
    """What factors predict of one task."""

    features: Floats  # [C + T, F], see `features_of`
    shares: Floats  # [C + T] of the context rows as given, of the target rows as predicted
    prediction: Prediction  # of the target rows


def look_each(
    factors: FactorsPredictor, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]
) -> list[Seen]:
    """What factors predict of each pair of context and target."""
    nothing = [(context.select(np.arange(0)), context) for context, _ in pairs]
    before = [(none, target) for (none, _), (_, target) in zip(nothing, pairs, strict=True)]
    beliefs = factors.believe_each([*pairs, *nothing, *before])
    count = len(pairs)
    parts = (beliefs[:count], beliefs[count : 2 * count], beliefs[2 * count :])
    return [
        Seen(
            features=features_of(context, context_before, before_context, after),
            shares=np.concatenate([context.shares, after.shares]).astype(np.float32),
            prediction=factors.prediction_of(after, len(context)),
        )
        for (context, _), after, context_before, before_context in zip(pairs, *parts, strict=True)
    ]


def features_of(
    context: PreferenceSet, context_before: Belief, before: Belief, after: Belief
) -> Floats:
    """Features [C + T, F] of a task.

    They are the root share that was predicted before any answer, and its standard deviation; both
    after the context, of a context row again before it; how far the answer was off; and whether
    the row is a target.

    Args:
        context: the answers.
        context_before: what was believed of them without any answer.
        before: what was believed of the target rows without any answer.
        after: what is believed of them given the context.
    """
    off = (np.sqrt(context.shares) - context_before.mean) / np.sqrt(context_before.variance)
    zeros, ones = np.zeros(len(before.mean)), np.ones(len(before.mean))
    known = [*_level(context_before), *_level(context_before), off / OFF, np.zeros(len(off))]
    asked = [*_level(before), *_level(after), zeros, ones]
    features: Floats = np.hstack([known, asked]).T.astype(np.float32)
    return features


def _level(belief: Belief) -> tuple[np.ndarray, np.ndarray]:
    return belief.mean, SPREAD * np.sqrt(belief.variance)
