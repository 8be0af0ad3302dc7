"""What sums of factors tell of a group's answers: in the clear, over a few groups, with noise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from in_process import EXPERIMENT, trained

from pluralllm_app.core.segments import Doubles, segment_sums
from pluralllm_app.learning.base import Request
from pluralllm_app.learning.factors import CONTRIBUTORS, FactorsLearner
from pluralllm_app.predictors.base import Arrays, ContextPredictor
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.privacy.respondents import Mechanism
from pluralllm_app.scoring.metrics import alignment
from pluralllm_app.settings import Settings
from pluralllm_app.survey.content import Influence
from pluralllm_app.survey.prepared import PreparedSurvey


def trained_on(preferences: PreferenceSet, settings: Settings) -> PreferenceSet:
    """A group's answers to its train questions, as far as an attacker can look for them."""
    train = split_questions(preferences, "train", settings.split).train
    return replace(preferences.select(train), description=None)


def noised(
    preferences: PreferenceSet, epsilon: float, respondents: int, delta: float
) -> PreferenceSet:
    """A group's answers with noise for respondents, who have answered every question."""
    influence = Influence(np.full(len(preferences), 1 / respondents), len(preferences))
    mechanism = Mechanism.of(influence, preferences.options, epsilon, delta)
    return mechanism.readable(preferences, mechanism.draw(preferences))


def first_contributions(
    survey: PreparedSurvey, groups: Sequence[PreferenceSet], settings: Settings
) -> list[Arrays]:
    """What groups contribute in the first round."""
    learner = FactorsLearner(settings, survey.all_questions, len(groups))
    sent = dict(learner.initial_state().sent)
    if settings.federation.privacy != "none":
        sent[CONTRIBUTORS] = sum(learner.counts(sent, own)[CONTRIBUTORS] for own in groups)
    asked = Request(1, False, EXPERIMENT, 0, learner.options())
    with TemporaryDirectory() as memory:
        return [
            learner.contribute(sent, own, asked, Path(memory, own.group)).arrays for own in groups
        ]


def released(
    survey: PreparedSurvey, groups: Sequence[PreferenceSet], settings: Settings
) -> ContextPredictor:
    """The model of a run with all groups."""
    learner = FactorsLearner(settings, survey.all_questions, len(groups))
    return trained(learner, groups, settings.federation.rounds)[0]


def read_off(total: Mapping[str, Doubles], own: PreferenceSet) -> tuple[PreferenceSet, Doubles]:
    """The questions of a group that are in a sum, and the shares that the sum gives for them.

    cross / gram of a row is the root of the share, less that of a uniform one, averaged over groups
    by how much their answers weigh.
    """
    gram = total["gram"][:, 0][own.rows]
    starts = np.cumsum(own.options) - own.options
    inside = np.flatnonzero(gram[starts] > 1e-9 * gram.max())
    found = own.select(inside)
    mean = total["cross"][found.rows, 0] / total["gram"][found.rows, 0]
    uniform = np.repeat(1 / np.sqrt(found.options), found.options)
    shares = np.maximum(mean + uniform, 0.0) ** 2
    return found, shares / np.repeat(segment_sums(shares, found.options), found.options)


def aligned(own: PreferenceSet, shares: Doubles, metric: str) -> float:
    """Mean alignment of recovered shares with the true ones."""
    return float(alignment(metric, shares, own.shares, own.options, own.values).mean())


def floor(predictor: ContextPredictor, own: PreferenceSet, metric: str) -> float:
    """How well the released model predicts a group of which it is told nothing."""
    everything = np.arange(len(own))
    context = own.select(everything[:0])
    return aligned(own, predictor.predict(context, own.ask(everything)).shares, metric)
