"""Every option alike: the floor that any predictor has to beat."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints, segment_starts
from pluralllm_app.predictors.base import Arrays, Baseline, Prediction, check_arrays
from pluralllm_app.preferences import PreferenceSet, QuestionSet


def uniform_shares(options: Ints) -> Doubles:
    """1 / option count for every option of questions with `options` [Q] options, flat."""
    uniform: Doubles = np.repeat(1.0 / options, options)
    return uniform


def distributions(values: Doubles, options: Ints) -> Doubles:
    """Clip flat values at 0 and scale them to sum to 1 per question; uniform where all are 0.

    >>> distributions(np.array([3.0, 1.0, -1.0, 0.0]), np.array([2, 2]))
    array([0.75, 0.25, 0.5 , 0.5 ])
    """
    clipped = np.maximum(values, 0.0)
    total = np.repeat(np.add.reduceat(clipped, segment_starts(options)), options)
    scaled: Doubles = np.divide(clipped, total, out=uniform_shares(options), where=total > 0)
    return scaled


class StatelessBaseline(Baseline):
    """A baseline that learns nothing from the train groups, so that nothing is saved of it."""

    @classmethod
    def fit(cls, train: Sequence[PreferenceSet]) -> Self:
        """Return the baseline; no answer of `train` is read."""
        return cls()

    def beyond(self, survey: QuestionSet) -> Self:
        """Return the baseline, to which every question is new."""
        return self

    def config(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def arrays(self) -> Arrays:
        """Nothing."""
        return {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the baseline; there must be nothing saved of it."""
        check_arrays(arrays, {})
        return cls(**config)


class Uniform(StatelessBaseline):
    """Share of every option = 1 / option count. Needs no answers at all."""

    kind: ClassVar[str] = "uniform"
    title: ClassVar[str] = "Uniform"
    about: ClassVar[str] = "It gives every option of a question the same share."

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict without reading the context."""
        return Prediction(uniform_shares(target.options))
