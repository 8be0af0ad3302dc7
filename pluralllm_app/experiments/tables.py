"""The tables of methods: their columns and how a cell reads, in the terminal and in the report."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.experiments.results import (
    CONTEXTS,
    DEFINITIONS,
    Cost,
    Interval,
    MethodResult,
    Run,
    loss_goal,
)
from pluralllm_app.predictors.base import LEVELS
from pluralllm_app.scoring.results import Role

GAINS = (0.9, 0.95)
COST_COLUMNS = ("90 % of gain", "95 %", "loss of centralized", "whole run")
INTERVAL_NOTE = f"Intervals: {DEFINITIONS['interval']}."
COVERAGE_NOTE = (
    "How much of the true shares of groups never trained on lies in the predicted intervals, mean "
    "over groups and seeds. Below the percentage of the interval: predictions are too sure of "
    "themselves; above: too unsure."
)
COVERAGE_COLUMNS = tuple(f"{level:.0%} intervals".replace("%", " %") for level in LEVELS)
FEW_SHOT_NOTE = (
    "Groups never trained on, mean over groups and seeds, one context a group: that of fewer "
    "questions is a part of that of more, and the same questions are predicted from all. They are "
    "some of those that other scores are of, so at the same number these differ a little. -: the "
    "method needs at least one question."
)
FAIRNESS_NOTE = (
    "Over groups never trained on: worst group; gap from best to worst; CoV, standard deviation "
    "over mean; fairness index FI = 1 / (1 + CoV²), 1 if all score the same. FI per question: of "
    "the groups that answered it, averaged over the questions that at least two did."
)


@dataclass(frozen=True)
class Column:
    """A score of a role, see `results.RoleSummary`."""

    title: str
    role: Role
    key: str
    lower_is_better: bool = False


def score_columns(reserved: bool) -> list[Column]:
    """The columns of the table of methods; `reserved`: some questions are kept from training."""
    columns = [
        Column("never trained on", "evaluation", "mean"),
        Column("worst", "evaluation", "worst"),
        Column("gap", "evaluation", "gap", lower_is_better=True),
        Column("CoV", "evaluation", "cov", lower_is_better=True),
        Column("FI", "evaluation", "fi"),
        Column("FI per question", "evaluation", "fi_per_question"),
        Column("train groups", "train", "mean"),
    ]
    if reserved:
        columns += [
            Column("never trained on, seen questions", "evaluation", "mean_seen"),
            Column("never trained on, reserved questions", "evaluation", "mean_reserved"),
            Column("train groups, seen questions", "train", "mean_seen"),
            Column("train groups, reserved questions", "train", "mean_reserved"),
        ]
    return columns


def cost_notes(methods: Collection[str]) -> list[str]:
    """What a table of costs with these methods, by name, means."""
    notes = [f"90 %, 95 %: {DEFINITIONS['gain']}; no finer than the evaluations lie apart."]
    if "centralized-paper" in methods:
        notes.append(f"Loss: {DEFINITIONS['loss']}.")
    notes += [
        "-: some seed never got there, or nothing was evaluated on the way.",
        "Steps: of the optimiser, one after another. Tasks: trained on by all groups together.",
        f"Seconds: {DEFINITIONS['seconds']}.",
    ]
    specs = (METHODS[name] for name in methods if name in METHODS)
    return notes + [spec.cost_note for spec in specs if spec.cost_note]


def method_title(method: MethodResult) -> str:
    """What a method is called, and what is to be known of its runs here."""
    notes = []
    if method.same_as is not None:
        notes.append(f"the same as {METHODS[method.same_as].title}")
    if len(method.runs) != method.seeds:
        notes.append(f"{len(method.runs)} of {method.seeds} seeds")
    spec = METHODS.get(method.name)
    cut = sum(run.info.ended_by == "budget" for run in method.runs)
    if cut and spec and spec.until_converged:
        notes.append(f"{cut} cut off")
    return method.title + (f" ({', '.join(notes)})" if notes else "")


def format_interval(interval: Interval | None) -> str:
    """`0.8123 [0.8101, 0.8150]`, without the brackets where there is one seed, or `-`."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def coverage_cells(method: MethodResult) -> list[str] | None:
    """How much of the true shares lies in a method's intervals, under COVERAGE_COLUMNS."""
    coverage = method.coverage("evaluation")
    return [f"{100 * part:.1f} %" for part in coverage] if coverage else None


def few_shot_notes(methods: Sequence[MethodResult]) -> list[str]:
    """What a table or figure by number of context questions means; some method has to be scored."""
    scored = [run.few_shot for method in methods for run in method.runs if run.few_shot]
    limit = min(scored, key=lambda few_shot: few_shot.most)
    left_out = [str(context) for context in CONTEXTS if context > limit.most]
    if not left_out:
        return [FEW_SHOT_NOTE]
    reason = f"{limit.most_group} has too few questions; of it, {limit.most} can be given"
    return [FEW_SHOT_NOTE, f"Left out: {', '.join(left_out)} ({reason})."]


def cost_rows(method: MethodResult, peers: Sequence[MethodResult]) -> dict[str, list[str]] | None:
    """What a method took, by kind of cost, under COST_COLUMNS; None where nothing is trained.

    A cell is the mean over the seeds, `-` where a seed never got there, or was not looked at on the
    way.

    Args:
        method: the method.
        peers: those that it is compared with; the loss to reach comes from one of them.
    """
    runs = [run for run in method.runs if run.costs and run.costs[-1].steps]
    if not runs or method.same_as is not None:
        return None
    columns: list[list[Cost | None]] = [
        *([run.cost_of_gain(share) for run in runs] for share in GAINS),
        [_cost_of_goal(run, peers) for run in runs],
        [run.costs[-1] for run in runs],
    ]
    kinds = [field.name for field in fields(Cost)]
    return {kind: [_mean_cost(costs, kind) for costs in columns] for kind in kinds}


def _cost_of_goal(run: Run, peers: Sequence[MethodResult]) -> Cost | None:
    goal = loss_goal(peers, run.seed)
    return None if goal is None else run.cost_of_loss(goal)


def _mean_cost(costs: Sequence[Cost | None], kind: str) -> str:
    values = [getattr(cost, kind) for cost in costs if cost is not None]
    if len(values) < len(costs):
        return "-"
    return f"{sum(values) / len(values):.1f}".removesuffix(".0")
