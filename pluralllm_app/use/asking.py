"""Which questions to put to a group next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np

from pluralllm_app.core.segments import Ints
from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.factors.asking import choose
from pluralllm_app.predictors.factors.model import Answers
from pluralllm_app.predictors.factors.posterior import ByFeatures
from pluralllm_app.predictors.factors.posterior import Group as FactorsGroup
from pluralllm_app.predictors.factors.predictor import FactorsPredictor, option_rows
from pluralllm_app.predictors.factors.text_kernel import OptionRows
from pluralllm_app.preferences import PreferenceSet, QuestionSet
from pluralllm_app.use.questions import Question, named
from pluralllm_app.use.survey import Located

LANDMARKS = 300  # of the text kernel


@dataclass(frozen=True)
class NextQuestion:
    """A question to ask."""

    question: Question
    explained: float
    """Part of what is uncertain about the other answers that it and those before it take away."""

    def __str__(self) -> str:
        return f"{self.explained:.0%} explained: {self.question.text}"


def next_questions(
    model: ContextPredictor,
    context: PreferenceSet,
    candidates: Located,
    target: Located,
    count: int,
    costs: Mapping[object, Any] | None,
) -> list[NextQuestion]:
    """Choose the questions whose answers would tell most, the best one first; see `Group.ask`.

    `costs` are by the key of a question.
    """
    factors = factors_to_ask(model)
    if not candidates.questions or not target.questions:
        return []
    wanted = {question.key for question in target.questions}
    may = _rows(candidates.rows)
    chosen = choose(
        _belief(factors, context),
        may,
        may if target is candidates else _rows(target.rows),
        np.array([question.key in wanted for question in candidates.questions]),
        _costs(candidates.questions, costs),
    )
    return [
        NextQuestion(candidates.questions[choice.place], choice.explained)
        for choice in islice(chosen, count)
    ]


def next_places(
    model: ContextPredictor, group: PreferenceSet, may: Ints, wanted: Ints, count: int
) -> Ints:
    """The same among a group's own questions, none of which is known yet.

    Args:
        model: of latent factors.
        group: its answers are not looked at.
        may: [n] positions of the questions that may be asked.
        wanted: positions of those that one wants to know.
        count: how many are chosen, at most.

    Returns:
        Places within `may`, the best one first.
    """
    chosen = choose(
        _belief(factors_to_ask(model), group.select(may[:0])),
        _rows(group.ask(may)),
        _rows(group.ask(wanted)),
        np.isin(may, wanted),
        np.ones(len(may)),
    )
    return np.array([choice.place for choice in islice(chosen, count)], np.int64)


def _rows(questions: QuestionSet) -> tuple[Ints, OptionRows]:
    return questions.rows, option_rows(questions)


def factors_of(model: ContextPredictor) -> FactorsPredictor | None:
    """The latent factors that a predictor is, or rests on; None where there are none."""
    found = getattr(model, "factors", None) if model.kind == "refined" else model
    return found if isinstance(found, FactorsPredictor) else None


def factors_to_ask(model: ContextPredictor) -> FactorsPredictor:
    """The latent factors that tell what to ask.

    Raises:
        PredictorError: this kind of predictor cannot tell.
    """
    found = factors_of(model)
    if found is None:
        raise PredictorError(
            f"{model.title}: this kind of predictor does not know how uncertain it is about one "
            "answer given another: ask with one trained with predictor = factors, or prior = "
            "factors"
        )
    return found


def _belief(model: FactorsPredictor, context: PreferenceSet) -> ByFeatures:
    """What is believed of the group, by fewer landmarks, which is enough to choose by."""
    kernel = model.kernel.first(LANDMARKS)
    latent = model.prior.latent(context.description)
    start = FactorsGroup(model.factors, kernel, latent, model.new)
    known = Answers.of(context.rows, option_rows(context), context.shares, context.respondents)
    return ByFeatures.of(start, known)


def _costs(questions: Sequence[Question], costs: Mapping[object, Any] | None) -> np.ndarray:
    if costs is None:
        return np.ones(len(questions))
    found = []
    for question in questions:
        cost = costs.get(question.key)
        if cost is None:
            raise AnswersError(f"{named(question)} has no cost: give each candidate one")
        if not isinstance(cost, Real) or not 0 < float(cost) < np.inf:
            raise AnswersError(f"{named(question)} costs {cost!r}: give a number above 0")
        found.append(float(cost))
    return np.array(found)
