"""What the charts show, as rows of plain values: one function per section of the report.

Every row has `method`, its title. Where a method has several seeds, `low` and `high` are the 95 %
interval of `results.Interval`; else they are None. `rounds`, `steps`, `tasks` and `seconds` are
what it took to get there, averaged over the seeds. Of curves, the first method's come last: what
comes last is drawn on top.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pluralllm_app.experiments.results import Cost, Interval, Run
from pluralllm_app.report.sources import SCORING, ReportMethod
from pluralllm_app.scoring.results import Role

Row = dict[str, Any]
Point = tuple[float, Cost]


def loss_rows(methods: Sequence[ReportMethod]) -> list[Row]:
    """Training loss after each round, averaged as `Run.losses` does.

    Where seeds stop at different rounds, only the rounds that all of them have count. A method
    with one loss for its whole training (each group alone) is left out.
    """
    return [
        row
        for method in reversed(methods)
        for row in _curve(method, Run.losses, "loss")
        if len(method.result.runs[0].losses()) > 1
    ]


def score_rows(methods: Sequence[ReportMethod], role: Role) -> list[Row]:
    """Mean alignment of a role at each evaluation; `rule` says that nothing was trained."""

    def scores(run: Run) -> list[Point]:
        return [(mean, run.costs[index]) for mean, index in run.means(role)]

    return [
        row | {"rule": not _trained(method)}
        for method in reversed(methods)
        for row in _curve(method, scores, "alignment")
    ]


def group_rows(methods: Sequence[ReportMethod], role: Role) -> list[Row]:
    """Alignment of every group of a role."""
    return [
        {"method": method.title, "group": group} | _numbers(interval, "alignment")
        for method in methods
        for group, interval in method.result.group_scores(role).items()
    ]


def few_shot_rows(methods: Sequence[ReportMethod]) -> list[Row]:
    """Alignment of groups never trained on, by number of context questions."""
    return [
        {"method": method.title, "context": context} | _numbers(interval, "alignment")
        for method in reversed(methods)
        for context, interval in method.result.few_shot().items()
    ]


def difference_rows(methods: Sequence[ReportMethod], role: Role) -> list[Row]:
    """Mean alignment of a role less that of the federated method, see `federated_of`.

    Runs are paired by seed, and only where both are scored on the same questions and contexts.
    """
    rows = []
    for method in methods:
        if (federated := federated_of(method, methods)) and federated is not method:
            known = {_contexts(run) for run in federated.result.runs}
            runs = [run for run in method.result.runs if _contexts(run) in known]
            paired = replace(method.result, runs=runs)
            if interval := paired.difference(federated.result, role, "mean"):
                rows.append({"method": method.title} | _numbers(interval, "difference"))
    return rows


def federated_of(method: ReportMethod, methods: Sequence[ReportMethod]) -> ReportMethod | None:
    """The first federated method that a method is compared with; None if either is unfinished."""
    if not method.finished:
        return None
    return next(
        (
            other
            for other in methods
            if other.kind == "federated" and other.peers is method.peers and other.finished
        ),
        None,
    )


def _contexts(run: Run) -> tuple[Any, ...]:
    """What runs have in common that are scored on the same questions and contexts."""
    return (run.seed, *(run.info.settings.get(key) for key in SCORING))


def fairness_rows(methods: Sequence[ReportMethod], role: Role) -> list[Row]:
    """Both forms of the fairness index of a role; of a single group, always 1, there are none."""
    rows = []
    for method in methods:
        groups = method.result.score(role, "groups")
        if not groups or groups.mean < 2:
            continue
        for form, key in (("over groups", "fi"), ("per question", "fi_per_question")):
            if interval := method.result.score(role, key):
                rows.append({"method": method.title, "form": form} | _numbers(interval, "fi"))
    return rows


def _trained(method: ReportMethod) -> bool:
    return any(run.losses() for run in method.result.runs)


def _curve(method: ReportMethod, read: Callable[[Run], list[Point]], name: str) -> Iterator[Row]:
    points = [read(run) for run in method.result.runs]
    # Runs of one method are evaluated after the same rounds, as far as they go.
    for at in zip(*points, strict=False):
        costs = [asdict(cost) for _, cost in at]
        mean = {key: number(float(np.mean([cost[key] for cost in costs]))) for key in costs[0]}
        values = Interval.of([value for value, _ in at])
        yield {"method": method.title} | mean | _numbers(values, name)


def _numbers(interval: Interval, name: str) -> Row:
    return {
        name: number(interval.mean),
        "low": number(interval.low),
        "high": number(interval.high),
        "seeds": len(interval.values),
    }


def number(value: float | None) -> float | None:
    """A value short enough to embed; None where it cannot be drawn."""
    return round(value, 4) if value is not None and math.isfinite(value) else None
