"""What run directories and comparisons say: scores with intervals, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.records.reader import read_comparison, read_few_shot, read_rounds, read_run
from pluralllm_app.records.schema import ComparisonInfo, FewShot, RoundEntry, RunInfo
from pluralllm_app.scoring.results import EvaluationResult, Role

ROLES: tuple[Role, ...] = ("evaluation", "train")  # in the order of tables
SCORES = (
    *("mean", "pooled", "worst", "gap", "cov", "fi", "fi_per_question"),
    *("mean_seen", "mean_reserved"),  # with reserved questions only
)
RESAMPLES = 10_000
CONTEXTS = (0, 1, 5, 10, 20, 50, 100)  # numbers of context questions that methods are scored at
LOSS_WINDOW = 5  # rounds a training loss is averaged over: one round is a few random tasks

DEFINITIONS = {
    "gain": "first evaluated round whose mean alignment of the groups never trained on has made "
    "the given share of the way from the untrained score to the last one",
    "loss": f"first round whose training loss, averaged over {LOSS_WINDOW} rounds, is at or below "
    "the last one of centralized training with the published budget, averaged likewise; a "
    "federated loss is that of the clients' own weights while they train, not of the average",
    "seconds": "of training, without evaluations, as the runs took them side by side",
    "interval": "95 % percentile bootstrap over the seeds, the groups taken as given; with 5 seeds "
    "such intervals cover the mean in about 85 % of cases, with 2 in about half",
}


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with the 95 % interval of a percentile bootstrap over the seeds.

    `low` and `high` are None where there is one seed only. See DEFINITIONS["interval"].
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]  # by seed

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of one value per seed; needs at least one."""
        array = np.asarray(values, np.float64)
        mean = float(array.mean())
        if len(array) == 1:
            return cls(mean, None, None, tuple(values))
        # The same resamples every time: a table printed twice is the same table.
        picks = generator(0, "bootstrap", len(array)).integers(
            len(array), size=(RESAMPLES, len(array))
        )
        low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
        return cls(mean, float(low), float(high), tuple(values))


@dataclass(frozen=True)
class Cost:
    """What it took to get to a round: rounds, optimiser steps, tasks, seconds of training."""

    rounds: int
    steps: int
    tasks: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """A run directory, as far as it has come."""

    path: Path
    info: RunInfo
    rounds: Sequence[RoundEntry]
    costs: Sequence[Cost]  # at the end of each round
    few_shot: FewShot | None = None  # None: not scored, see `few_shot.score_few_shot`

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run directory, finished or not.

        Raises:
            UserError: there is none, or it is damaged.
        """
        info = read_run(path)
        if info is None:
            raise UserError(f"{path} is no run directory: it has no run.json")
        rounds = read_rounds(path, complete=info.status == "completed")
        return cls(path, info, rounds, _costs(rounds), read_few_shot(path))

    @property
    def method(self) -> str:
        """Name of what was run; that of a federation says what it learned."""
        if self.info.method != "federated":
            return self.info.method
        settings = self.info.settings
        if settings.get("prior") == "factors":
            return "refined"
        return "factors" if settings.get("predictor") == "factors" else "federated"

    @property
    def seed(self) -> int:
        return self.info.seed

    @property
    def finished(self) -> bool:
        return self.info.status == "completed"

    @property
    def evaluated(self) -> list[int]:
        """Indices into `rounds` of those with an evaluation."""
        return [index for index, entry in enumerate(self.rounds) if entry.evaluation]

    @property
    def counted(self) -> list[int]:
        """Of `evaluated`, those up to the evaluation that counts as the run's result.

        It is the last one; of training until convergence the best one, on the train groups.
        """
        spec = METHODS.get(self.method)
        if spec is None or not spec.until_converged:
            return self.evaluated
        best = -1 if self.info.best_round is None else self.info.best_round
        return [index for index in self.evaluated if self.rounds[index].round <= best]

    @property
    def result(self) -> EvaluationResult | None:
        """The evaluation that counts, see `counted`; None where nothing was evaluated."""
        counted = self.counted
        return self.rounds[counted[-1]].evaluation if counted else None

    def score(self, role: Role, key: str) -> float | None:
        """One number of the result's summary of a role; None where there is none."""
        summary = self.result.roles[role] if self.result else None
        value: float | None = getattr(summary, key) if summary else None
        return value

    def coverage(self, role: Role) -> list[float] | None:
        """How much of the true shares lies in the intervals, for each of `base.LEVELS`.

        The mean over the groups of a role; None where none was predicted with intervals.
        """
        groups = self.result.groups.values() if self.result else ()
        known = [group.coverage for group in groups if group.role == role and group.coverage]
        return _column_means(known) if known else None

    def means(self, role: Role) -> list[tuple[float, int]]:
        """Mean alignment of a role at each evaluation, with the index of its round."""
        scored = [(index, self.rounds[index].evaluation) for index in self.evaluated]
        return [
            (summary.mean, index)
            for index, evaluation in scored
            if evaluation and (summary := evaluation.roles[role])
        ]

    def cost_of_gain(self, share: float) -> Cost | None:
        """The cost of `share` of the gain on groups never trained on; None if nothing was gained.

        See DEFINITIONS["gain"].
        """
        counted = self.counted
        scores = [
            (mean, self.costs[index])
            for mean, index in self.means("evaluation")
            if index in counted
        ]
        if len(scores) < 2 or scores[-1][0] <= scores[0][0]:
            return None
        goal = scores[0][0] + share * (scores[-1][0] - scores[0][0])
        return next(cost for score, cost in scores if score >= goal)

    def losses(self) -> list[tuple[float, Cost]]:
        """Training loss after each round that trains, averaged over up to LOSS_WINDOW rounds."""
        trained = [
            (entry.train.loss, cost)
            for entry, cost in zip(self.rounds, self.costs, strict=True)
            if entry.train and entry.train.loss is not None
        ]
        values = [loss for loss, _ in trained]
        return [
            (float(np.mean(values[max(0, index + 1 - LOSS_WINDOW) : index + 1])), cost)
            for index, (_, cost) in enumerate(trained)
        ]

    @property
    def final_loss(self) -> float | None:
        """The training loss of the last LOSS_WINDOW rounds; None where there were fewer."""
        whole = self.losses()[LOSS_WINDOW - 1 :]
        return whole[-1][0] if whole else None

    def cost_of_loss(self, goal: float) -> Cost | None:
        """The cost of a training loss of `goal` over LOSS_WINDOW rounds; None if never reached."""
        whole = self.losses()[LOSS_WINDOW - 1 :]
        return next((cost for loss, cost in whole if loss <= goal), None)


def _costs(rounds: Sequence[RoundEntry]) -> list[Cost]:
    costs = []
    cost = Cost(0, 0, 0, 0.0)
    for entry in rounds:
        if entry.train:
            cost = replace(
                cost,
                steps=cost.steps + entry.train.steps,
                tasks=cost.tasks + entry.train.tasks,
                seconds=cost.seconds + entry.train.seconds,
            )
        costs.append(replace(cost, rounds=entry.round))
    return costs


@dataclass(frozen=True)
class MethodResult:
    """One method of a comparison: its finished runs, by seed."""

    name: str
    title: str
    pools_answers: bool
    same_as: str | None  # another method that is the same here, and was run in its place
    seeds: int  # how many it is to have
    runs: Sequence[Run]

    def score(self, role: Role, key: str) -> Interval | None:
        """A number of the summary of a role over the seeds; None where no run has it."""
        values = [run.score(role, key) for run in self.runs]
        known = [value for value in values if value is not None]
        return Interval.of(known) if known else None

    def coverage(self, role: Role) -> list[float] | None:
        """Mean of `Run.coverage` over the seeds."""
        known = [coverage for run in self.runs if (coverage := run.coverage(role))]
        return _column_means(known) if known else None

    def few_shot(self) -> dict[int, Interval]:
        """Alignment of groups never trained on, by number of context questions.

        Numbers that some seed could not be scored on are left out.
        """
        values: dict[int, list[float]] = {}
        scored = [run.few_shot for run in self.runs if run.few_shot]
        for few_shot in scored:
            for point in few_shot.points:
                if point.alignment is not None:
                    values.setdefault(point.context, []).append(point.alignment)
        return {
            context: Interval.of(found)
            for context, found in values.items()
            if len(found) == len(scored)
        }

    def group_scores(self, role: Role) -> dict[str, Interval]:
        """Alignment of every group of a role over the seeds, by name."""
        values: dict[str, list[float]] = {}
        for run in self.runs:
            groups = run.result.groups if run.result else {}
            for name, group in sorted(groups.items()):
                if group.role == role:
                    values.setdefault(name, []).append(group.alignment)
        return {name: Interval.of(scores) for name, scores in values.items()}

    def difference(self, other: "MethodResult", role: Role, key: str) -> Interval | None:
        """This method's score less that of another, paired by seed."""
        theirs = {run.seed: run.score(role, key) for run in other.runs}
        pairs = [(run.score(role, key), theirs.get(run.seed)) for run in self.runs]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        return Interval.of(known) if known else None


@dataclass(frozen=True)
class Comparison:
    """A comparison directory, as far as it has come."""

    path: Path
    info: ComparisonInfo
    methods: Sequence[MethodResult]

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Read a comparison; runs that are not finished are left out, see `unfinished`.

        Raises:
            UserError: there is none, or it is damaged.
        """
        info = read_comparison(path)
        if info is None:
            raise UserError(f"{path} is no comparison: it has no comparison.json")
        methods = []
        for name, method in info.methods.items():
            directory = path / "cells" / (method.same_as or name)
            found = (directory / f"seed-{seed}" for seed in info.seeds)
            runs = [Run.read(cell) for cell in found if (cell / "run.json").exists()]
            finished = [run for run in runs if run.finished]
            methods.append(
                MethodResult(
                    name,
                    method.title,
                    method.pools_answers,
                    method.same_as,
                    len(info.seeds),
                    finished,
                )
            )
        return cls(path, info, methods)

    def method(self, name: str) -> MethodResult | None:
        """One method by name; None where the comparison has none or it has no finished run."""
        return next((found for found in self.methods if found.name == name and found.runs), None)

    @property
    def unfinished(self) -> int:
        """How many cells have no finished run."""
        return sum(
            method.seeds - len(method.runs) for method in self.methods if method.same_as is None
        )


def _column_means(rows: Sequence[Sequence[float]]) -> list[float]:
    means: list[float] = np.mean(rows, axis=0).tolist()
    return means


def loss_goal(methods: Sequence[MethodResult], seed: int) -> float | None:
    """The training loss that DEFINITIONS["loss"] asks for, under one seed; None if unknown."""
    runs = (run for method in methods if method.name == "centralized-paper" for run in method.runs)
    return next((run.final_loss for run in runs if run.seed == seed), None)
