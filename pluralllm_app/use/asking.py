"""Which questions to put to a group next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.predictors.factors.asking import choose
from pluralllm_app.predictors.factors.model import Answers
from pluralllm_app.predictors.factors.posterior import ByFeatures
from pluralllm_app.predictors.factors.posterior import Group as FactorsGroup
from pluralllm_app.predictors.factors.predictor import FactorsPredictor, option_rows
from pluralllm_app.use.questions import Question, named

if TYPE_CHECKING:
    from pluralllm_app.use.group import Group
    from pluralllm_app.use.predictor import Asked

LANDMARKS = 300  # of the text kernel


@dataclass(frozen=True)
class NextQuestion:
    """A question to ask."""

    question: Question
    explained: float
    """Part of what is uncertain about the other answers that it and those before it take away."""


def next_questions(
    group: "Group",
    count: int,
    among: "Asked | None" = None,
    about: "Asked | None" = None,
    costs: Mapping[str, float] | None = None,
) -> list[NextQuestion]:
    """Choose the questions whose answers would tell most, the best one first; see `Group.ask`."""
    factors = getattr(group.predictor.model, "factors", None)
    model = group.predictor.model
    found = model if isinstance(model, FactorsPredictor) else factors
    if not isinstance(found, FactorsPredictor):
        raise PredictorError(
            f"{model.title}: this kind of predictor does not know how uncertain it is about one "
            "answer given another: ask with one trained with predictor = factors, or prior = "
            "factors"
        )
    if count < 1:
        raise AnswersError(f"{count} questions cannot be chosen: give 1 or more")
    locate = group.predictor.locate
    answered = {question for question in group.answered}
    candidates = locate(_without(locate(among, group.notes).questions, answered), group.notes)
    if not candidates.questions:
        return []
    target = locate(_without(locate(about, group.notes).questions, answered), group.notes)
    belief = _belief(found, group)
    wanted = set(target.questions)
    chosen = choose(
        belief,
        (candidates.rows.rows, option_rows(candidates.rows)),
        (target.rows.rows, option_rows(target.rows)),
        np.array([question in wanted for question in candidates.questions]),
        _costs(candidates.questions, costs),
    )
    return [
        NextQuestion(candidates.questions[choice.place], choice.explained)
        for choice in islice(chosen, count)
    ]


def _without(questions: Sequence[Question], answered: set[Question]) -> list[Question]:
    return [question for question in questions if question not in answered]


def _belief(model: FactorsPredictor, group: "Group") -> ByFeatures:
    """What is believed of the group, by fewer landmarks, which is enough to choose by."""
    context = group.context
    kernel = model.kernel.first(LANDMARKS)
    latent = model.prior.latent(context.description)
    start = FactorsGroup(model.factors, kernel, latent, model.new)
    known = Answers.of(context.rows, option_rows(context), context.shares, context.respondents)
    return ByFeatures.of(start, known)


def _costs(questions: Sequence[Question], costs: Mapping[str, float] | None) -> np.ndarray:
    if costs is None:
        return np.ones(len(questions))
    found = [costs.get(question.id or "", costs.get(question.text)) for question in questions]
    for question, cost in zip(questions, found, strict=True):
        if cost is None:
            raise AnswersError(f"{named(question)} has no cost: give each candidate one")
        if not 0 < cost < np.inf:
            raise AnswersError(f"{named(question)} costs {cost}: give a number above 0")
    return np.array(found, np.float64)
