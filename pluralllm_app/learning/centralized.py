"""Training without a federation, for comparison: all groups pooled, or each group alone.

Centralized GPO takes the same tasks, loss and optimiser as a client, each step on a batch with one
draw of `tasks-per-step` tasks from every train group. What a budget gives it:

paper          100 steps, as published (arXiv 2503.09925), where a federated client takes 600
equal-steps    as many optimiser steps as a federated client takes in all its rounds
equal-tasks    as many tasks in all as the federated run trains on
converged      constant learning rate until the train groups' held-out score stops rising;
               its result is best/, the state before it stopped
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from torch import Tensor

from pluralllm_app.core.seeding import generator
from pluralllm_app.errors import UserError
from pluralllm_app.learning.device import prepare_processor
from pluralllm_app.learning.local_steps import (
    chosen_groups,
    initial_model,
    learning_rates,
    run_steps,
    step_precision,
    task_size,
    tasks_per_round,
    torch_device,
    train_group,
)
from pluralllm_app.learning.optimizers import OptimizerState, make_optimizer
from pluralllm_app.predictors.base import Predictor
from pluralllm_app.predictors.gpo.network import GPO, flatten_weights, get_weights, set_weights
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.preferences import PreferenceSet, Task, draw_task, split_questions
from pluralllm_app.records.writer import RunRecord, recorded_run
from pluralllm_app.scoring.evaluation import (
    GroupEvaluation,
    evaluate,
    selection_score,
    summarise_groups,
)
from pluralllm_app.scoring.metrics import GroupScores
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

BUDGETS = ("paper", "equal-steps", "equal-tasks", "converged")
PAPER_STEPS = 100
PATIENCE = 5  # evaluations without a better score that end `converged`
LONGEST = 3  # times equal-steps, after which `converged` ends in any case

Entry = dict[str, Any]


@dataclass(frozen=True)
class PooledSurvey:
    """A survey whose groups lie in one place."""

    preferences: Mapping[str, PreferenceSet]
    roles: Mapping[str, str]
    metric: str

    @classmethod
    def of(cls, survey: PreparedSurvey) -> "PooledSurvey":
        """Read every group of a survey."""
        preferences = {group.name: survey.preferences(group.name) for group in survey.groups}
        return cls(preferences, {group.name: group.role for group in survey.groups}, survey.metric)

    def of_role(self, role: str) -> list[str]:
        """Names of the groups of one role, sorted."""
        return sorted(name for name, own in self.roles.items() if own == role)

    def score(self, predictor: Predictor, name: str, settings: Settings) -> GroupEvaluation:
        """Score a predictor on one group."""
        return evaluate(
            predictor,
            self.preferences[name],
            self.roles[name],
            settings.split,
            settings.evaluation,
            self.metric,
        )

    def record(self, survey: PreparedSurvey, record: RunRecord) -> None:
        """Write survey and groups into a run's record."""
        groups = sorted(self.preferences.items())
        record.describe(survey, [(name, self.roles[name], len(own)) for name, own in groups])


def budget_steps(budget: str, settings: Settings, train_groups: int) -> int:
    """Optimiser steps of a budget; of `converged`, the most it may take.

    Raises:
        UserError: unknown budget, or no group to train on.
    """
    if budget not in BUDGETS:
        raise UserError(f"budget {budget!r} is not one of {', '.join(BUDGETS)}")
    if not train_groups:
        raise UserError("the survey has no train groups: nothing to train on")
    rounds, training = settings.federation.rounds, settings.training
    steps = rounds * training.local_steps
    if budget == "equal-tasks":
        per_round = min(settings.federation.train_groups_per_round or train_groups, train_groups)
        return max(1, round(steps * per_round / train_groups))
    return {"paper": PAPER_STEPS, "equal-steps": steps, "converged": LONGEST * steps}[budget]


def train_centralized(
    survey: PreparedSurvey,
    settings: Settings,
    config: Mapping[str, Scalar],
    budget: str,
    progress: Callable[[Entry], None] = lambda entry: None,
) -> None:
    """Train on all train groups at once; writes a run directory at `settings.out`.

    A round of the record is `local-steps` optimiser steps.

    Args:
        config: the run config the settings were read from, for the record.
        progress: called with each line of rounds.jsonl.
    """
    with recorded_run(settings.path("out"), f"centralized-{budget}", config) as record:
        pool = PooledSurvey.of(survey)
        pool.record(survey, record)
        steps = budget_steps(budget, settings, len(pool.of_role("train")))
        prepare_processor(settings.training.client_threads)
        model, trained = (
            initial_model(survey.dim, settings).to(torch_device(settings.training.device))
            for _ in range(2)
        )
        predictor = GPOPredictor(model)
        train = _Trainer(trained, pool, settings, steps, constant=budget == "converged")
        scores: list[float] = []
        for number in count():
            start = time.perf_counter()
            entry: Entry = {"round": number, "train": train() if number else None}
            entry |= {"evaluation": None, "failures": []}
            check_finite(train.weights, settings)
            if train.left == 0 or number % settings.evaluation.evaluate_every == 0:
                set_weights(model, train.weights)
                evaluations = {
                    name: pool.score(GPOPredictor(model), name, settings) for name in pool.roles
                }
                summary = summarise_groups(evaluations, pool.roles, settings.split)
                entry["evaluation"] = summary
                record.keep_best(number, summary, pool.roles, predictor)
                scores.append(selection_score(summary["roles"]["train"]))
            entry["seconds"] = round(time.perf_counter() - start, 3)
            record.append_round(entry)
            progress(entry)
            waited = len(scores) - 1 - int(np.argmax(scores))
            converged = budget == "converged" and waited >= PATIENCE
            if train.left == 0 or converged:
                break
        record.update(ended_by="score" if converged else "budget")
        set_weights(model, train.weights)
        record.save_model("model", predictor)


class _Trainer:
    """Takes a round's steps at each call; a batch has tasks of every train group."""

    def __init__(
        self, model: GPO, pool: PooledSurvey, settings: Settings, steps: int, *, constant: bool
    ) -> None:
        self._model, self._training = model, settings.training
        self._batches = _batches(pool, settings)
        self.weights = flatten_weights(model, get_weights(model))
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

    def __call__(self) -> dict[str, Any]:
        """Take the next steps; returns the train part of a round's entry."""
        start = time.perf_counter()
        size = self._training.local_steps
        rates, self._rates = self._rates[:size], self._rates[size:]
        batches = list(islice(self._batches, len(rates)))
        statistics = run_steps(
            self._model,
            self.weights,
            self._optimizer,
            batches,
            rates,
            self._training.clip_norm,
            precision=step_precision(self._training),
        )
        tasks = sum(len(batch) for batch in batches)
        seconds = round(time.perf_counter() - start, 3)
        return {"loss": statistics.loss, "steps": len(rates), "tasks": tasks, "seconds": seconds}


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


def train_alone(survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Train each train group alone on the tasks it has in a federated run of the same settings.

    The record has one evaluation: a train group is scored by its own predictor, an evaluation
    group by those of all train groups, averaged. A group that no round draws stays untrained.
    """
    with recorded_run(settings.path("out"), "local-only", config) as record:
        start = time.perf_counter()
        pool = PooledSurvey.of(survey)
        pool.record(survey, record)
        prepare_processor(settings.training.client_threads)
        train, rounds = pool.of_role("train"), settings.federation.rounds
        chosen = [chosen_groups(train, settings, number) for number in range(1, rounds + 1)]
        most = max(sum(name in groups for groups in chosen) for name in train)
        own: dict[str, GroupEvaluation] = {}
        on_others: dict[str, list[GroupEvaluation]] = {n: [] for n in pool.of_role("evaluation")}
        losses, tasks = [], 0
        seconds = 0.0
        for name in train:
            begun = time.perf_counter()
            model = initial_model(survey.dim, settings).to(torch_device(settings.training.device))
            state: OptimizerState | None = None
            for number in (n for n, groups in enumerate(chosen, start=1) if name in groups):
                statistics, state = train_group(
                    model,
                    pool.preferences[name],
                    settings.training,
                    seed=settings.federation.seed,
                    split=settings.split,
                    round_number=number,
                    rounds=rounds,
                    optimizer_state=state,
                )
                losses.append(statistics.loss)
                tasks += tasks_per_round(settings.training)
            seconds += time.perf_counter() - begun
            check_finite(get_weights(model), settings)
            own[name] = pool.score(GPOPredictor(model), name, settings)
            for other, evaluations in on_others.items():
                evaluations.append(pool.score(GPOPredictor(model), other, settings))
        scored = own | {name: _mean(evaluations) for name, evaluations in on_others.items()}
        record.append_round(
            {
                "round": rounds,
                "train": {
                    "loss": float(np.mean(losses)),
                    "steps": most * settings.training.local_steps,
                    "tasks": tasks,
                    "seconds": round(seconds, 3),
                },
                "evaluation": summarise_groups(scored, pool.roles, settings.split),
                "failures": [],
                "seconds": round(time.perf_counter() - start, 3),
            }
        )


def _mean(evaluations: list[GroupEvaluation]) -> GroupEvaluation:
    """Average the scores of several predictors on the same questions; they have no one loss."""
    scores = np.mean([evaluation.scores.scores for evaluation in evaluations], axis=0)
    return GroupEvaluation(GroupScores(evaluations[0].scores.questions, scores), None)
