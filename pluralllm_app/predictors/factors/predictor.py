"""The latent-factor model as a predictor: a new group follows in closed form from its context."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from pluralllm_app.core.segments import segment_rows
from pluralllm_app.predictors.base import (
    LEVELS,
    Arrays,
    ArraysError,
    ContextPredictor,
    Prediction,
    check_arrays,
)
from pluralllm_app.predictors.factors.calibration import CONTEXTS, Calibration
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior
from pluralllm_app.predictors.factors.model import Answers, Belief, Factors
from pluralllm_app.predictors.factors.new_rows import NewRows
from pluralllm_app.predictors.factors.packing import factor_shapes, pack_factors, unpack_factors
from pluralllm_app.predictors.factors.posterior import Posterior, given
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel
from pluralllm_app.predictors.pairs import agreeing
from pluralllm_app.preferences import PreferenceSet, QuestionSet


class FactorsPredictor(ContextPredictor):
    """Predicts by offsets and loadings that all groups share, and what is the group's own.

    A group of which no answer is known gets the answers that its description suggests or, without
    one, the population's.
    """

    kind: ClassVar[str] = "factors"
    title: ClassVar[str] = "Latent factors of preferences"
    about: ClassVar[str] = (
        "It is a latent-factor model of square-root shares, learned by sums over other groups, "
        "with a prior from the text of questions and options."
    )

    def __init__(
        self,
        factors: Factors,
        kernel: TextKernel,
        calibration: Calibration,
        prior: DescriptionPrior,
        text: OptionRows | None = None,
    ) -> None:
        self.factors = factors
        self.kernel = kernel
        self.calibration = calibration
        self.prior = prior
        self.text = text  # of all the survey's questions, where it is at hand
        self.new: NewRows | None = None  # what is known of others, where there may be some

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares with their uncertainty; the context may be empty."""
        return self.predict_each([(context, target)])[0]

    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict for several pairs, of which each question's text is read once."""
        beliefs = self.believe_each(pairs)
        return [
            self.prediction_of(belief, len(context))
            for belief, (context, _) in zip(beliefs, pairs, strict=True)
        ]

    def prediction_of(self, belief: Belief, context: int) -> Prediction:
        """The prediction that is a belief, which rests on `context` questions."""
        intervals = belief.intervals(self.calibration.at(context))
        return agreeing(Prediction(belief.shares, belief.deviation, intervals), belief.options)

    def believe_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Belief]:
        """What is believed of the targets of several pairs of context and target."""
        text = self.text_of([questions for pair in pairs for questions in pair])
        return [
            self.believe(self._posterior(context, text(context)), target, text(target))
            for context, target in pairs
        ]

    def text_of(self, sets: Sequence[QuestionSet]) -> Callable[[QuestionSet], OptionRows]:
        """What gives the text of each of `sets`, having read each question once."""
        if self.text is not None:
            whole = self.text
            return lambda questions: whole.select(questions.questions)
        numbers, at = np.unique(
            np.concatenate([questions.questions for questions in sets]), return_index=True
        )
        first = np.concatenate([questions.first_rows for questions in sets])[at]
        options = np.concatenate([questions.options for questions in sets])[at]
        rows = OptionRows.of(sets[0].embeddings[segment_rows(first, options)], options)
        return lambda questions: rows.select(np.searchsorted(numbers, questions.questions))

    @property
    def heeds_descriptions(self) -> bool:
        """Whether the train groups' descriptions told anything about them."""
        return bool(self.prior.weights.any())

    def condition(self, context: PreferenceSet) -> "FactorsOfGroup":
        """Condition on a group's answers, of which there may be none."""
        text = self.text_of([context])(context)
        return FactorsOfGroup(self, self._posterior(context, text), len(context))

    def beyond(self, survey: QuestionSet) -> Self:
        """The same predictor, which takes of a new question what its text says of it."""
        self._check(survey)
        other = copy(self)
        other.text, other.new = None, NewRows(self.kernel, partial(option_rows, survey))
        return other

    def _posterior(self, context: PreferenceSet, text: OptionRows) -> Posterior:
        known = Answers.of(context.rows, text, context.shares, context.respondents)
        latent = self.prior.latent(context.description)
        return given(self.factors, self.kernel, known, latent, self.new)

    def believe(self, group: Posterior, target: QuestionSet, text: OptionRows) -> Belief:
        """What is believed of a group's answers to the questions of `target`.

        Raises:
            ValueError: they are questions of another survey.
        """
        if not self.new:
            self._check(target)
        return group.believe(target.rows, text)

    def _check(self, questions: QuestionSet) -> None:
        rows = len(self.factors.mean)
        if len(questions.embeddings) != rows:
            raise ValueError(
                f"this predictor was made for a survey with {rows} options, and is asked for one "
                f"with {len(questions.embeddings)}"
            )

    def config(self) -> dict[str, Any]:
        """Sizes, and the kernel's length-scale."""
        rows, width = self.factors.mean.shape
        landmarks, twice = self.kernel.landmarks.shape
        return {
            "rows": rows,
            "factors": width - 1,
            "landmarks": landmarks,
            "dim_x": twice // 2,
            "length": self.kernel.length,
        }

    def arrays(self) -> Arrays:
        """Posterior and variances, as `pack_factors` has them, and the kernel's landmarks."""
        return {
            **pack_factors(self.factors),
            "landmarks": self.kernel.landmarks,
            "widths": self.calibration.widths,
            "prior-weights": self.prior.weights,
            "prior-variance": self.prior.variance,
        }

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Undo `config` and `arrays`."""
        rows, width = int(config["rows"]), int(config["factors"]) + 1
        landmarks, twice = int(config["landmarks"]), 2 * int(config["dim_x"])
        shapes = {
            **factor_shapes(rows, width, landmarks),
            "landmarks": (landmarks, twice),
            "widths": (len(CONTEXTS), len(LEVELS)),
            "prior-weights": (1 + twice // 2, width - 1),
            "prior-variance": (width - 1,),
        }
        check_arrays(arrays, shapes)
        length = float(config["length"])
        if not (np.isfinite(length) and length > 0):
            raise ValueError(f"its length = {length} is no length")
        if not (arrays["variances"] >= 0).all() or not (arrays["prior-variance"] >= 0).all():
            raise ArraysError("a variance is below 0")
        kernel = TextKernel(arrays["landmarks"].astype(np.float32), length)
        prior = DescriptionPrior(arrays["prior-weights"], arrays["prior-variance"])
        return cls(unpack_factors(arrays), kernel, Calibration(arrays["widths"]), prior)


@dataclass(frozen=True, eq=False)
class FactorsOfGroup:
    """Factors, and what is believed of one group."""

    predictor: FactorsPredictor
    posterior: Posterior
    context: int  # questions that it rests on

    def predict(self, target: QuestionSet) -> Prediction:
        """Predict the target's shares with their uncertainty."""
        return self.prediction_of(self.believe(target))

    def prediction_of(self, belief: Belief) -> Prediction:
        """The prediction that is such a belief."""
        return self.predictor.prediction_of(belief, self.context)

    def believe(self, target: QuestionSet, text: OptionRows | None = None) -> Belief:
        """What is believed of the group's answers to the questions of `target`.

        `text` is theirs, where it was read already.
        """
        text = self.predictor.text_of([target])(target) if text is None else text
        return self.predictor.believe(self.posterior, target, text)


def option_rows(questions: QuestionSet) -> OptionRows:
    """The options of some questions as the text kernel sees them."""
    return OptionRows.of(questions.embeddings[questions.rows], questions.options)
