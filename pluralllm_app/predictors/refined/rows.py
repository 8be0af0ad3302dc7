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

    features: Floats  # [C + T, F], of context and target rows
    shares: Floats  # [C + T] of the context rows as given, of the target rows as predicted
    prediction: Prediction  # of the target rows


def look_each(
    factors: FactorsPredictor, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]
) -> list[Seen]:
    """What factors predict of each pair of context and target."""
    nothing = [(context.select(np.arange(0)), context) for context, _ in pairs]
    unasked = [(none, target) for (none, _), (_, target) in zip(nothing, pairs, strict=True)]
    beliefs = factors.believe_each([*pairs, *nothing, *unasked])
    count = len(pairs)
    parts = (beliefs[:count], beliefs[count : 2 * count], beliefs[2 * count :])
    return [
        Seen(
            features=np.concatenate(
                [context_features(context, context_before), target_features(before, after)]
            ),
            shares=np.concatenate([context.shares, after.shares]).astype(np.float32),
            prediction=factors.prediction_of(after, len(context)),
        )
        for (context, _), after, context_before, before in zip(pairs, *parts, strict=True)
    ]


def context_features(context: PreferenceSet, before: Belief) -> Floats:
    """Features [C, F] of context rows.

    They are the root share that was predicted before any answer, and its standard deviation; both
    again; how far the answer was off; and that the row is no target.

    Args:
        context: the answers.
        before: what was believed of them without any answer.
    """
    off = (np.sqrt(context.shares) - before.mean) / np.sqrt(before.variance)
    return _columns(*_level(before), *_level(before), off / OFF, np.zeros(len(off)))


def target_features(before: Belief, after: Belief) -> Floats:
    """Features [T, F] of target rows, as in `context_features`.

    Args:
        before: what was believed of them without any answer.
        after: what is believed of them given the context; in place of the second pair.
    """
    zeros, ones = np.zeros(len(before.mean)), np.ones(len(before.mean))
    return _columns(*_level(before), *_level(after), zeros, ones)


def _columns(*columns: np.ndarray) -> Floats:
    features: Floats = np.stack(columns, axis=1).astype(np.float32)
    return features


def _level(belief: Belief) -> tuple[np.ndarray, np.ndarray]:
    return belief.mean, SPREAD * np.sqrt(belief.variance)
