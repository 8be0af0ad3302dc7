"""Training without a federation, for comparison: on all groups pooled, or on each group alone.

Centralized GPO takes the same tasks, loss and optimiser as a client, each step on a batch with one
draw of `tasks-per-step` tasks from every train group.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

import numpy as np
from torch import Tensor

from pluralllm_app.core.seeding import generator
from pluralllm_app.errors import UserError
from pluralllm_app.learning.budgets import PATIENCE, budget_steps
from pluralllm_app.learning.device import prepare_processor, torch_device
from pluralllm_app.learning.local_steps import (
    initial_model,
    learning_rates,
    run_steps,
    step_precision,
    task_size,
    tasks_per_round,
    train_group,
)
from pluralllm_app.learning.optimizers import OptimizerState, make_optimizer
from pluralllm_app.learning.sampling import chosen_groups
from pluralllm_app.predictors.gpo.network import GPO, flatten_weights, get_weights
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.preferences import Task, draw_task, split_questions
from pluralllm_app.scoring.evaluation import GroupEvaluation
from pluralllm_app.scoring.metrics import GroupScores
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.scoring.results import EvaluationResult, summarise
from pluralllm_app.settings import Settings


@dataclass(frozen=True)
class Trained:
    """What training took, and the loss it ended with."""

    loss: float  # nats per option, averaged over the tasks
    steps: int  # of the optimiser, one after another
    tasks: int
    seconds: float


@dataclass(frozen=True)
class CentralizedRound:
    """`local-steps` optimiser steps, or fewer in the last round; round 0 is before any."""

    number: int
    trained: Trained | None  # None in round 0
    evaluation: EvaluationResult | None  # None where none was due
    seconds: float  # with the evaluation
    ended_by: Literal["score", "budget"] | None  # why this round is the last; None: it is not
    predictor: GPOPredictor  # after the round; the next round trains it on


def train_centralized(
    pool: PooledSurvey, settings: Settings, budget: str
) -> Iterator[CentralizedRound]:
    """Train on all train groups at once, and yield each round when it is done.

    With the budget `converged`, the best predictor is not the last one but that of the round with
    the best score of the train groups' held-out questions.

    Raises:
        UserError: an impossible budget, or weights that diverge.
    """
    steps = budget_steps(budget, settings, len(pool.of_role("train")))
    prepare_processor(settings.training.client_threads)
    network = initial_model(pool.dim, settings).to(torch_device(settings.training.device))
    train = _Trainer(network, pool, settings, steps, constant=budget == "converged")
    predictor = GPOPredictor(network)
    scores: list[float] = []
    for number in count():
        start = time.perf_counter()
        trained = train() if number else None
        check_finite(train.weights, settings)
        evaluation = None
        if train.left == 0 or number % settings.evaluation.evaluate_every == 0:
            evaluation = pool.score_all(predictor, settings)
            summary = evaluation.roles["train"]
            assert summary is not None, "there are train groups"
            scores.append(summary.selection_score)
        seconds = round(time.perf_counter() - start, 3)
        waited = len(scores) - 1 - int(np.argmax(scores))
        converged = budget == "converged" and waited >= PATIENCE
        ended_by: Literal["score", "budget"] | None = None
        if converged or train.left == 0:
            ended_by = "score" if converged else "budget"
        yield CentralizedRound(number, trained, evaluation, seconds, ended_by, predictor)
        if ended_by:
            return


class _Trainer:
    """Takes a round's steps at each call; a batch has tasks of every train group."""

    def __init__(
        self, network: GPO, pool: PooledSurvey, settings: Settings, steps: int, *, constant: bool
    ) -> None:
        self._network, self._training = network, settings.training
        self._batches = _batches(pool, settings)
        self.weights = flatten_weights(network, get_weights(network))
        self._optimizer = make_optimizer(self.weights, settings.training)
        self._rates = (
            [settings.training.learning_rate] * steps
            if constant
            else learning_rates(settings.training, 0, steps, steps)
        )

    @property
    def left(self) -> int:
        """Steps that are left of the budget."""
        return len(self._rates)

    def __call__(self) -> Trained:
        """Take the next steps."""
        start = time.perf_counter()
        size = self._training.local_steps
        rates, self._rates = self._rates[:size], self._rates[size:]
        batches = list(islice(self._batches, len(rates)))
        statistics = run_steps(
            self._network,
            self.weights,
            self._optimizer,
            batches,
            rates,
            self._training.clip_norm,
            precision=step_precision(self._training),
        )
        tasks = sum(len(batch) for batch in batches)
        seconds = round(time.perf_counter() - start, 3)
        return Trained(statistics.loss, len(rates), tasks, seconds)


def _batches(pool: PooledSurvey, settings: Settings) -> Iterator[list[Task]]:
    """One draw of `tasks-per-step` tasks from every train group, again and again."""
    groups = [pool.preferences[name] for name in pool.of_role("train")]
    positions = [split_questions(group, "train", settings.split).train for group in groups]
    rng = generator(settings.federation.seed, "centralized tasks")
    size = task_size(settings.training)
    while True:
        yield [
            group.task(*draw_task(train, size, rng))
            for group, train in zip(groups, positions, strict=True)
            for _ in range(settings.training.tasks_per_step)
        ]


def check_finite(weights: Tensor, settings: Settings) -> None:
    """Refuse weights that have diverged; raises UserError with the remedy."""
    if not bool(weights.isfinite().all()):
        raise UserError(
            "the weights are no longer finite: lower learning-rate = "
            f"{settings.training.learning_rate:g}, or set clip-norm"
        )


def train_alone(pool: PooledSurvey, settings: Settings) -> tuple[Trained, EvaluationResult]:
    """Train each train group alone on the tasks it has in a federated run of the same settings.

    Returns:
        What it took, with the steps of the group that took the most; and how it did: a train group
        is scored by its own predictor, an evaluation group by those of all train groups, averaged.
        A group that no round draws stays untrained.

    Raises:
        UserError: weights that diverge.
    """
    prepare_processor(settings.training.client_threads)
    train, rounds = pool.of_role("train"), settings.federation.rounds
    chosen = [chosen_groups(train, settings, number) for number in range(1, rounds + 1)]
    evaluations: dict[str, GroupEvaluation] = {}
    on_others: dict[str, list[GroupEvaluation]] = {n: [] for n in pool.of_role("evaluation")}
    losses: list[float] = []
    seconds = 0.0
    for name in train:
        start = time.perf_counter()
        network = initial_model(pool.dim, settings).to(torch_device(settings.training.device))
        state: OptimizerState | None = None
        for number in (n for n, groups in enumerate(chosen, start=1) if name in groups):
            statistics, state = train_group(
                network,
                pool.preferences[name],
                settings.training,
                seed=settings.federation.seed,
                split=settings.split,
                round_number=number,
                rounds=rounds,
                optimizer_state=state,
            )
            losses.append(statistics.loss)
        seconds += time.perf_counter() - start
        check_finite(get_weights(network), settings)
        predictor = GPOPredictor(network)
        evaluations[name] = pool.score(predictor, name, settings)
        for other, found in on_others.items():
            found.append(pool.score(predictor, other, settings))
    evaluations |= {name: _mean(found) for name, found in on_others.items()}
    most = max(sum(name in groups for groups in chosen) for name in train)
    trained = Trained(
        loss=float(np.mean(losses)),
        steps=most * settings.training.local_steps,
        tasks=len(losses) * tasks_per_round(settings.training),
        seconds=round(seconds, 3),
    )
    return trained, summarise(evaluations, pool.roles, settings.split)


def _mean(evaluations: list[GroupEvaluation]) -> GroupEvaluation:
    """Average the scores of several predictors on the same questions; they have no one loss."""
    scores = np.mean([evaluation.scores.scores for evaluation in evaluations], axis=0)
    return GroupEvaluation(GroupScores(evaluations[0].scores.questions, scores), None)
