"""The rounds of a run: choose groups, train, aggregate, evaluate, record."""

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.evaluation import summarise_groups
from pluralllm_app.federation.exchange import ChosenNodes, exchange
from pluralllm_app.federation.roster import Roster, build_roster, error_reason
from pluralllm_app.federation.strategies import WEIGHT, make_strategy
from pluralllm_app.gpo import get_weights, set_weights
from pluralllm_app.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND,
    Evaluation,
    Update,
    Weights,
    check_weights,
    record_to_weights,
    weights_to_record,
)
from pluralllm_app.record import RunRecord, recorded_run
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.training import chosen_groups, initial_model, tasks_per_round

Failures = list[dict[str, str]]  # group, phase, reason


def run_federation(
    grid: Grid,
    settings: Settings,
    config: Mapping[str, Scalar],
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a whole federation and write its run directory at `settings.out`.

    Args:
        config: the run config the settings were read from, for the record.
        progress: called with a line for the log now and then.

    Raises:
        FederationError: see `build_roster`; fewer good updates in a round than the quorum;
            weights that are no longer finite. The run directory says so too.
    """
    with recorded_run(settings.path("out"), "federated", config) as record:
        Rounds(grid, settings, record, progress).run()


class Rounds:
    """The state of a run: roster, strategy, current weights."""

    def __init__(
        self, grid: Grid, settings: Settings, record: RunRecord, progress: Callable[[str], None]
    ) -> None:
        self.grid = grid
        self.settings = settings
        self.record = record
        self.progress = progress
        self.strategy = make_strategy(settings)
        self.roster: Roster = build_roster(grid, settings, progress)
        self.model = initial_model(self.roster.survey.dim, settings)
        self.weights: Weights = get_weights(self.model).numpy()
        groups = self.roster.groups.values()
        record.describe(
            self.roster.survey, [(group.group, group.role, group.questions) for group in groups]
        )

    def run(self) -> None:
        """Run all rounds; round 0 is the evaluation of the untrained predictor."""
        federation = self.settings.federation
        every = self.settings.evaluation.evaluate_every
        self._round(0, train=False, evaluate=True)
        for number in range(1, federation.rounds + 1):
            last = number == federation.rounds
            self._round(number, train=True, evaluate=last or number % every == 0)
            if number % federation.checkpoint_every == 0:
                self.record.save_model(f"checkpoints/round-{number:04d}", self.model)
                self.record.save_model("model", self.model)
        self.record.save_model("model", self.model)

    def _round(self, number: int, *, train: bool, evaluate: bool) -> None:
        start = time.perf_counter()
        failures: Failures = []
        entry: dict[str, Any] = {"round": number, "train": None, "evaluation": None}
        try:
            if train:
                entry["train"] = self._train(number, failures)
                entry["train"]["seconds"] = round(time.perf_counter() - start, 3)
            if evaluate:
                entry["evaluation"] = self._evaluate(number, failures)
        finally:  # a round that ends the run is recorded as well
            seconds = round(time.perf_counter() - start, 3)
            self.record.append_round(entry | {"failures": failures, "seconds": seconds})

    def _train(self, number: int, failures: Failures) -> dict[str, Any]:
        """Train the round's groups and set the aggregated weights."""
        names = chosen_groups(self.roster.of_role("train"), self.settings, number)
        nodes = cast(Grid, ChosenNodes([self.roster.nodes[name] for name in names]))
        arrays = weights_to_record(self.weights)
        messages = self.strategy.configure_train(number, arrays, ConfigRecord(), nodes)
        replies = self._gather("train", list(messages), names, failures)
        updates: dict[str, Update] = {}
        for name, reply in replies.items():
            expected = self.roster.groups[name].pool
            try:
                updates[name] = Update.from_content(reply.content, len(self.weights), expected)
            except ValueError as error:
                failures.append({"group": name, "phase": "train", "reason": f"refused: {error}"})
        self._check_quorum(number, len(updates), failures)
        uniform = self.settings.federation.weighting == "uniform"
        for name, update in updates.items():
            weight = 1.0 if uniform else float(update.questions)
            replies[name].content.metric_records[METRICS][WEIGHT] = weight
        aggregated, _ = self.strategy.aggregate_train(number, [replies[name] for name in updates])
        self._set_weights(number, aggregated)
        return {
            "loss": float(np.mean([update.loss for update in updates.values()])),
            "steps": self.settings.training.local_steps,
            "tasks": len(updates) * tasks_per_round(self.settings.training),
            "groups": {
                name: {
                    "loss": update.loss,
                    "js_divergence": update.js_divergence,
                    "questions": update.questions,
                }
                for name, update in updates.items()
            },
        }

    def _check_quorum(self, number: int, good: int, failures: Failures) -> None:
        quorum = self.settings.federation.min_train_groups
        if good >= quorum:
            return
        raise FederationError(
            f"round {number}: good updates: {good}, fewer than min-train-groups = {quorum}: "
            f"{_causes(failures)}"
        )

    def _set_weights(self, number: int, aggregated: ArrayRecord | None) -> None:
        strategy = self.settings.federation.strategy
        if aggregated is None:
            raise FederationError(f"round {number}: {strategy} gave no weights")
        # Several of Flower's strategies compute in float64.
        weights = record_to_weights(aggregated).astype(np.float32)
        try:
            check_weights(weights, len(self.weights))
        except ValueError as error:
            raise FederationError(
                f"round {number}: the weights {strategy} gave are not usable ({error}): lower the "
                "learning rates"
            ) from error
        self.weights = weights
        set_weights(self.model, torch.from_numpy(weights))

    def _evaluate(self, number: int, failures: Failures) -> dict[str, Any]:
        """Score the current weights on every group; keep them as `best` if they are."""
        names = list(self.roster.groups)
        content = RecordDict(
            {ARRAYS: weights_to_record(self.weights), CONFIG: ConfigRecord({ROUND: number})}
        )
        messages = [
            Message(content, self.roster.nodes[name], MessageType.EVALUATE) for name in names
        ]
        evaluations: dict[str, Evaluation] = {}
        for name, reply in self._gather("evaluate", messages, names, failures).items():
            try:
                evaluations[name] = Evaluation.from_content(reply.content, self._scored(name))
            except ValueError as error:
                failures.append({"group": name, "phase": "evaluate", "reason": f"refused: {error}"})
        if not evaluations:
            raise FederationError(f"round {number}: no group could be scored: {_causes(failures)}")
        roles = {name: group.role for name, group in self.roster.groups.items()}
        summary = summarise_groups(evaluations, roles, self.settings.split)
        self.record.keep_best(number, summary, roles, self.model)
        return summary

    def _scored(self, name: str) -> range:
        """How many questions a group may be scored on; a train group: those not trained on."""
        group = self.roster.groups[name]
        if group.role == "train":
            return range(group.questions - group.pool, group.questions - group.pool + 1)
        context = self.settings.evaluation.evaluation_context
        return range(group.questions - context, group.questions + 1)

    def _gather(
        self, phase: str, messages: list[Message], names: list[str], failures: Failures
    ) -> dict[str, Message]:
        """Exchange messages; return good replies by group, sorted, and note the failures."""
        replies, silent = exchange(self.grid, messages, self.settings.federation.round_timeout)
        good = {}
        for name in names:
            node = self.roster.nodes[name]
            if node in silent:
                reason = f"no reply within {self.settings.federation.round_timeout:g} s"
            elif replies[node].has_error():
                reason = error_reason(replies[node])
            else:
                good[name] = replies[node]
                continue
            failures.append({"group": name, "phase": phase, "reason": reason})
            self.progress(f"{phase}: {name} failed: {reason}")
        return good


def _causes(failures: Failures) -> str:
    return "; ".join(f"{failure['group']}: {failure['reason']}" for failure in failures)
