"""Score a predictor on one group, on fixed contexts: scores compare over rounds and runs."""

from dataclasses import dataclass

import numpy as np
import torch

from pluralllm_app.errors import FederationError
from pluralllm_app.gpo import GPO, log_likelihood, segment_softmax
from pluralllm_app.metrics import GroupScores, alignment
from pluralllm_app.preferences import (
    Ints,
    PreferenceSet,
    hold_out,
    segment_rows,
    train_count,
)
from pluralllm_app.seeding import generator
from pluralllm_app.settings import EvaluationSettings, TrainingSettings


@dataclass(frozen=True)
class GroupEvaluation:
    """How a predictor did on one group, averaged over the context draws."""

    scores: GroupScores  # per target question
    loss: float  # negative log-likelihood per target row, nats


def check_size(
    group: str,
    role: str,
    questions: int,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
) -> None:
    """Refuse a group with too few questions for the settings.

    Raises:
        FederationError: naming the group, its count and the settings to lower.
    """
    context = evaluation.evaluation_context
    if role == "evaluation":
        if questions < context + 1:
            raise FederationError(
                f"group {group!r} has {questions} questions; evaluation-context = {context} "
                f"needs at least {context + 1}: lower it or leave the group out"
            )
        return
    train = train_count(questions, training.held_out_fraction)
    needed = max(context, training.context_min + training.target_min)
    if train < needed:
        raise FederationError(
            f"group {group!r} has {train} train questions of {questions}; evaluation-context = "
            f"{context} and context-min + target-min = "
            f"{training.context_min + training.target_min} need at least {needed}: lower them "
            "or leave the group out"
        )


def evaluation_draws(
    preferences: PreferenceSet, role: str, held_out_fraction: float, settings: EvaluationSettings
) -> list[tuple[Ints, Ints]]:
    """The (context, target) positions a group is scored on, one pair per draw.

    A train group's contexts come from its train questions and its targets are all its held-out
    questions; an evaluation group's targets are all questions but the context. The draws depend
    on `settings.evaluation_seed` and the group's name alone, never on the run's seed or round.
    """
    if role == "train":
        pool, held_out = hold_out(preferences, held_out_fraction, settings.evaluation_seed)
    else:
        pool, held_out = np.arange(len(preferences)), None
    draws = []
    for draw in range(settings.evaluation_draws):
        rng = generator(settings.evaluation_seed, "context", preferences.group, draw)
        context = np.sort(rng.permutation(pool)[: settings.evaluation_context])
        target = np.setdiff1d(pool, context) if held_out is None else held_out
        draws.append((context, target))
    return draws


def combine_draws(
    preferences: PreferenceSet, draws: list[tuple[Ints, Ints]], scores: list[np.ndarray]
) -> GroupScores:
    """Average each question's score over the draws in which it was a target."""
    positions = np.concatenate([target for _, target in draws])
    values = np.concatenate(scores)
    count = np.bincount(positions, minlength=len(preferences))
    total = np.bincount(positions, values, minlength=len(preferences))
    scored = count > 0
    return GroupScores(preferences.questions[scored], total[scored] / count[scored])


@torch.inference_mode()
def score_group(
    model: GPO,
    preferences: PreferenceSet,
    role: str,
    held_out_fraction: float,
    settings: EvaluationSettings,
    metric: str,
) -> GroupEvaluation:
    """Score `model` on one group: all targets of a draw in one pass, rows embedded once."""
    draws = evaluation_draws(preferences, role, held_out_fraction, settings)
    device = next(model.parameters()).device
    everything = np.unique(np.concatenate([target for _, target in draws]))
    x, _ = preferences.rows(everything, device)
    embedded = model.embed(x, x.new_zeros(len(x)))
    first = np.full(len(preferences), -1)
    first[everything] = np.cumsum(preferences.options[everything]) - preferences.options[everything]
    scores, log_densities = [], []
    for context, target in draws:
        context_x, context_y = preferences.rows(context, device)
        target_rows = torch.from_numpy(segment_rows(first[target], preferences.options[target]))
        rows = torch.cat([model.embed(context_x, context_y), embedded[target_rows.to(device)]])
        mean, std = model.attend(rows, len(context_x))
        share_rows = preferences.share_rows(target)
        options = preferences.options[target]
        predicted = segment_softmax(mean, torch.from_numpy(options).to(device))
        shares = preferences.shares[share_rows]
        values = None if preferences.values is None else preferences.values[share_rows]
        log_density = log_likelihood(predicted, std, torch.from_numpy(shares).to(device))
        log_densities.append(log_density.cpu().numpy())
        scores.append(alignment(metric, predicted.cpu().numpy(), shares, options, values))
    loss = -float(np.concatenate(log_densities).mean(dtype=np.float64))
    return GroupEvaluation(combine_draws(preferences, draws, scores), loss)
