"""What a predictor is: it predicts how a group answers some questions from its other answers.

In use, with texts instead of rows, predictors are those of `use.predictor`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.segments import Doubles
from pluralllm_app.preferences import PreferenceSet, QuestionSet

Arrays = Mapping[str, NDArray[Any]]
LEVELS = (0.8, 0.95)  # of intervals: how often one is to hold the true share


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted shares of the T options of some questions, flat in the questions' order."""

    shares: Doubles  # [T], summing to 1 per question
    deviation: Doubles | None = None  # [T] standard deviation of each; None: the kind has none
    intervals: Doubles | None = None  # [levels, 2, T] least and largest share, for each of LEVELS


class Conditioned(Protocol):
    """What is left of a predictor and a group's answers once the two are put together."""

    def predict(self, target: QuestionSet) -> Prediction:
        """Predict the group's answers to the questions of `target`."""


class ContextPredictor(ABC):
    """Predicts a group's answers in context, without being trained on that group.

    A predictor is saved as its `config` and its `arrays`; its kind says which class restores it,
    see `registry`.
    """

    kind: ClassVar[str]
    title: ClassVar[str]  # for tables and headings
    about: ClassVar[str]  # how it predicts, in a sentence for the card beside the saved predictor
    pools_answers: ClassVar[bool] = False  # whether it needs, and holds, groups' raw answers
    least_context: ClassVar[int] = 0  # how many context questions a prediction needs

    @abstractmethod
    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the answers of the context's group to the questions of `target`.

        Args:
            context: questions the group answered, with its answers.
            target: questions of the same survey.
        """

    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict for several pairs of context and target; some kinds share work among them."""
        return [self.predict(context, target) for context, target in pairs]

    @property
    def heeds_descriptions(self) -> bool:
        """Whether a group's description changes what is predicted of it."""
        return False

    def condition(self, context: PreferenceSet) -> Conditioned:
        """Put the predictor and a group's answers together, for one target after another.

        What depends on the answers alone is then computed once, by the kinds that can.
        """
        return _Unprepared(self, context)

    def beyond(self, survey: QuestionSet) -> Self | None:
        """The same predictor for questions that its survey does not have.

        The rows of a new question follow those of the survey, in an option table that begins with
        the survey's.

        Args:
            survey: all questions of the survey that it was made for.

        Returns:
            None where this kind knows only the questions that groups have answered.
        """
        return None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What config.json says besides the kind: JSON values by name."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """What model.safetensors holds, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Make the predictor that has this `config` and these `arrays`.

        Raises:
            ArraysError: the arrays are others than this config describes.
            ValueError, TypeError: the config is not that of a predictor of this kind.
        """


@dataclass(frozen=True)
class _Unprepared:
    predictor: ContextPredictor
    context: PreferenceSet

    def predict(self, target: QuestionSet) -> Prediction:
        return self.predictor.predict(self.context, target)


class Baseline(ContextPredictor):
    """A predictor without federated training: what a trained predictor has to beat."""

    @classmethod
    @abstractmethod
    def fit(cls, train: Sequence[PreferenceSet]) -> Self:
        """Fit it on the answers of the train groups, each with the questions it lets others use.

        A group among them is left out when it is predicted itself, so that it counts as new.
        """


class ArraysError(ValueError):
    """Saved arrays are others than the config beside them describes."""


def check_arrays(
    arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], kind: type[np.generic] | None = None
) -> None:
    """Check that there are exactly the arrays of these names and `shapes`.

    Args:
        arrays: by name.
        shapes: by name.
        kind: of the numbers of all arrays; None: any.

    Raises:
        ArraysError: naming the first few that are missing, not known or of another shape or kind.
    """
    faults = [f"{name} is missing" for name in shapes if name not in arrays]
    faults += [f"{name} is not known" for name in arrays if name not in shapes]
    faults += [
        f"{name} is {list(arrays[name].shape)}, not {list(shape)}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    faults += [
        f"{name} is of {array.dtype}, not {np.dtype(kind)}"
        for name, array in arrays.items()
        if kind and array.dtype != kind
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ArraysError(", ".join(faults[:3]) + more)
