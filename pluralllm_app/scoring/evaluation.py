"""Score a predictor on one group, on fixed contexts, so that scores of any runs are comparable."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.errors import FederationError
from pluralllm_app.predictors.base import ContextPredictor, Prediction
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.scoring.metrics import GroupScores, alignment
from pluralllm_app.settings import (
    EvaluationSettings,
    Settings,
    SplitSettings,
    TrainingSettings,
)

ROUNDING = 1e-6  # of a share, which is stored in float32
Draw = tuple[Ints, Ints]  # positions of the context and of the targets


@dataclass(frozen=True)
class GroupEvaluation:
    """How a predictor did on one group, averaged over the context draws."""

    scores: GroupScores  # of each target question
    loss: float | None  # see `negative_log_likelihood`
    coverage: Sequence[float] | None = None  # see `interval_coverage`


def check_size(
    group: str,
    role: str,
    questions: int,
    pool: int,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
) -> None:
    """Refuse a group that has too few questions for the settings; arguments as in `size_fault`.

    Raises:
        FederationError: naming the group, its count and the settings to lower.
    """
    if fault := size_fault(role, questions, pool, training, evaluation):
        raise FederationError(f"group {group!r} {fault}")


def size_fault(
    role: str,
    questions: int,
    pool: int,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
) -> str | None:
    """What a group has too few of for the settings, in words that follow its name.

    Args:
        role: train or evaluation.
        questions: how many it answers.
        pool: how many of these contexts can be taken from, and a train group can train on.
        training: says how many questions a task needs.
        evaluation: says how many questions a context needs.
    """
    context = evaluation.evaluation_context
    if role == "evaluation":
        if questions < context + 1 or pool < context:
            return (
                f"has {questions} questions, {pool} of them not reserved; "
                f"evaluation-context = {context} needs at least {context + 1}, {context} of them "
                f"not reserved: {_lower(pool, {'evaluation-context': (context, 2)})}"
            )
        return None
    needed = max(context, training.context_min + training.target_min)
    if pool < needed:
        return (
            f"has {pool} train questions of {questions}; evaluation-context = "
            f"{context} and context-min + target-min = "
            f"{training.context_min + training.target_min} need at least {needed}: "
            + _lower(
                pool,
                {
                    "evaluation-context": (context, 2),
                    "context-min": (training.context_min, 3),
                    "target-min": (training.target_min, 3),
                },
            )
        )
    return None


def _lower(pool: int, settings: Mapping[str, tuple[int, int]]) -> str:
    """Say what to do where a group has too few questions: a setting may take one of so many."""
    fitting = {name: min(value, pool // part) for name, (value, part) in settings.items()}
    if 0 in fitting.values():
        return "it is too small, leave it out"
    shown = " ".join(f"{name}={value}" for name, value in fitting.items())
    return f"lower them, as in -c '{shown}', or reserved-fraction, or leave the group out"


def check_groups(groups: Iterable[tuple[str, str, int, int]], settings: Settings) -> None:
    """Refuse groups (name, role, questions, pool) that the settings cannot train or score.

    Raises:
        FederationError: a group with too few questions, or fewer train groups than needed.
    """
    groups = list(groups)
    for group in groups:
        check_size(*group, settings.training, settings.evaluation)
    train = sum(role == "train" for _, role, *_ in groups)
    needed = settings.federation.min_train_groups
    if train < needed:
        raise FederationError(
            f"there are too few train groups, {train} of min-train-groups = {needed}: "
            f"{'lower it, or ' if train else ''}add train groups"
        )


def evaluation_draws(
    preferences: PreferenceSet, role: str, split: SplitSettings, settings: EvaluationSettings
) -> list[Draw]:
    """Draw the positions (context, target) that a group is scored on, one pair for each draw.

    Contexts are taken from the questions that are not kept from training. The targets of a train
    group are all questions that it does not train on; those of an evaluation group are all but the
    context. The draws depend on the evaluation seed and the group's name alone, and never on the
    seed or the round of a run.
    """
    pool = split_questions(preferences, role, split).train
    draws = []
    for draw in range(settings.evaluation_draws):
        rng = generator(split.evaluation_seed, "context", preferences.group, draw)
        context = np.sort(rng.permutation(pool)[: settings.evaluation_context])
        answered = pool if role == "train" else context
        draws.append((context, np.setdiff1d(np.arange(len(preferences)), answered)))
    return draws


def score_shares(
    preferences: PreferenceSet, draws: list[Draw], predicted: Sequence[ArrayLike], metric: str
) -> GroupScores:
    """Score the shares [T] predicted for each draw's targets against the group's own.

    A question's score is averaged over the draws in which it was a target.
    """
    scores = []
    for (_, positions), shares in zip(draws, predicted, strict=True):
        target = preferences.select(positions)
        scores.append(alignment(metric, shares, target.shares, target.options, target.values))
    positions = np.concatenate([target for _, target in draws])
    values = np.concatenate(scores)
    count = np.bincount(positions, minlength=len(preferences))
    total = np.bincount(positions, values, minlength=len(preferences))
    scored = count > 0
    return GroupScores(preferences.questions[scored], total[scored] / count[scored])


def evaluate(
    predictor: ContextPredictor,
    preferences: PreferenceSet,
    role: str,
    split: SplitSettings,
    settings: EvaluationSettings,
    metric: str,
) -> GroupEvaluation:
    """Score a predictor on one group, on the contexts and targets of `evaluation_draws`."""
    draws = evaluation_draws(preferences, role, split, settings)
    predictions = predictor.predict_each(
        [(preferences.select(context), preferences.ask(target)) for context, target in draws]
    )
    scores = score_shares(preferences, draws, [found.shares for found in predictions], metric)
    true = np.concatenate([preferences.select(target).shares for _, target in draws])
    return GroupEvaluation(
        scores, negative_log_likelihood(predictions, true), interval_coverage(predictions, true)
    )


def interval_coverage(predictions: Sequence[Prediction], true: ArrayLike) -> list[float] | None:
    """The part of all rows whose true share lies in its interval, for each of LEVELS.

    It is None where a prediction has no intervals.

    Args:
        predictions: of some questions each.
        true: [T] true shares of the rows of all predictions, one after another.
    """
    intervals = _joined([found.intervals for found in predictions])
    if intervals is None:
        return None
    low, high = intervals.transpose(1, 0, 2)
    shares = np.asarray(true, np.float64)
    inside = (low - ROUNDING <= shares) & (shares <= high + ROUNDING)
    coverage: list[float] = inside.mean(axis=1).tolist()
    return coverage


def negative_log_likelihood(predictions: Sequence[Prediction], true: ArrayLike) -> float | None:
    """Mean over all rows of -log Normal(true share; predicted share, deviation), in nats.

    It is None where a prediction has no deviation.

    Args:
        predictions: of some questions each.
        true: [T] true shares of the rows of all predictions, one after another.
    """
    deviation = _joined([found.deviation for found in predictions])
    if deviation is None:
        return None
    error = np.asarray(true, np.float64) - np.concatenate([found.shares for found in predictions])
    rows = (error / deviation) ** 2 / 2 + np.log(deviation) + math.log(2 * math.pi) / 2
    return float(rows.mean())


def _joined(parts: Sequence[Doubles | None]) -> Doubles | None:
    """Arrays [..., T], one after another along T; None where one of them is missing."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=-1) if len(known) == len(parts) else None
