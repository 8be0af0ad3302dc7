"""The tables of a comparison in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pluralllm_app.core.wording import many
from pluralllm_app.experiments.results import CONTEXTS, ROLES, Comparison, Interval, MethodResult
from pluralllm_app.experiments.tables import (
    COST_COLUMNS,
    COVERAGE_COLUMNS,
    COVERAGE_NOTE,
    FAIRNESS_NOTE,
    INTERVAL_NOTE,
    cost_notes,
    cost_rows,
    coverage_cells,
    few_shot_notes,
    method_title,
)

INTERVAL = len("[0.812, 0.834]")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print scores, differences and costs of a comparison, each with its definition."""
    info = comparison.info
    seeds = info.seeds
    console.print()
    console.print(
        f"{info.survey.name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} "
        f"({', '.join(map(str, seeds))}), alignment (1 is perfect)"
        + (
            ": mean [95 % bootstrap interval over the seeds]"
            if len(seeds) > 1
            else "; one seed gives no interval"
        ),
        highlight=False,
        markup=False,
    )
    if comparison.unfinished:
        verb = "is" if comparison.unfinished == 1 else "are"
        text = f"{many(comparison.unfinished, 'run')} {verb} not finished and left out."
        console.print(text, style="yellow", highlight=False)
    if not _evaluated(comparison):
        console.print("No evaluation groups: no scores of groups never trained on.")
    console.print(_alignment(comparison))
    several = _evaluated(comparison) > 1
    if several:
        console.print(_fairness(comparison))
    elif _evaluated(comparison):
        console.print("One evaluation group: nothing to say of fairness over groups.")
    if info.settings["reserved-fraction"]:
        console.print(_quadrants(comparison))
    notes = [INTERVAL_NOTE] if len(seeds) > 1 else []
    notes += [FAIRNESS_NOTE] if several else []
    costs = _costs(comparison)
    if costs.row_count:  # something was trained
        console.print(costs)
        notes += cost_notes([method.name for method in comparison.methods if method.runs])
    console.print("\n".join(notes), highlight=False, markup=False)
    covered = [method for method in comparison.methods if method.coverage("evaluation")]
    if covered:
        console.print(_coverage(covered))
        console.print(COVERAGE_NOTE, highlight=False, markup=False)
    few_shot = [
        method for method in comparison.methods if method.same_as is None and method.few_shot()
    ]
    if few_shot:
        console.print(_few_shot(few_shot))
        lines = few_shot_notes(few_shot)
        console.print("\n".join(lines), highlight=False, markup=False)


def _evaluated(comparison: Comparison) -> int:
    """How many evaluation groups were scored."""
    results = [run.result for method in comparison.methods for run in method.runs if run.result]
    roles = [[group.role for group in result.groups.values()] for result in results]
    return max((each.count("evaluation") for each in roles), default=0)


def _alignment(comparison: Comparison) -> Table:
    federated = comparison.method("federated")
    table = _table(
        "Alignment, mean over groups",
        ("pools answers", len("answers")),
        ("groups never trained on", INTERVAL),
        ("minus federated", INTERVAL + 2),  # with signs
        ("train groups", INTERVAL),
    )
    for method in comparison.methods:
        less = method.difference(federated, "evaluation", "mean") if federated else None
        table.add_row(
            method_title(method),
            "yes" if method.pools_answers else "no",
            _cell(method.score("evaluation", "mean")),
            _cell(None if method is federated else less, sign="+"),
            _cell(method.score("train", "mean")),
        )
    return table


def _fairness(comparison: Comparison) -> Table:
    keys = ("worst", "gap", "cov", "fi", "fi_per_question")
    titles = ("worst", "gap", "CoV", "FI", "FI per question")
    table = _table("Fairness over groups never trained on", *((title, None) for title in titles))
    for method in comparison.methods:
        table.add_row(
            method_title(method),
            *(_cell(method.score("evaluation", key), digits=4) for key in keys),
        )
    return table


def _quadrants(comparison: Comparison) -> Table:
    titles = ("never trained on: seen", "reserved", "train groups: seen", "reserved")
    table = _table("Alignment by question", *((title, INTERVAL) for title in titles))
    for method in comparison.methods:
        cells = [(role, key) for role in ROLES for key in ("mean_seen", "mean_reserved")]
        table.add_row(method_title(method), *(_cell(method.score(*cell)) for cell in cells))
    return table


def _coverage(methods: Sequence[MethodResult]) -> Table:
    table = _table("True shares within intervals", *((title, None) for title in COVERAGE_COLUMNS))
    for method in methods:
        table.add_row(method_title(method), *(coverage_cells(method) or ()))
    return table


def _few_shot(methods: Sequence[MethodResult]) -> Table:
    curves = [method.few_shot() for method in methods]
    contexts = [context for context in CONTEXTS if any(context in curve for curve in curves)]
    title = "Alignment by number of questions whose answers are given"
    table = _table(title, *((str(context), None) for context in contexts))
    for method, curve in zip(methods, curves, strict=True):
        cells = (f"{curve[context].mean:.3f}" if context in curve else "-" for context in contexts)
        table.add_row(method_title(method), *cells)
    return table


def _table(title: str, *columns: tuple[str, int | None]) -> Table:
    """A table of methods; columns of titles and widths, None: as wide as there is room."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method")
    for column, width in columns:
        table.add_column(column, justify="right", width=width)
    return table


def _cell(interval: Interval | None, sign: str = "", digits: int = 3) -> str:
    """Mean and, below it, the interval with so many digits after the point."""
    if interval is None:
        return "-"
    mean = f"{interval.mean:{sign}.4f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean}\n\\[{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]"


def _costs(comparison: Comparison) -> Table:
    columns = [("to reach", None), *((title, len("centralized")) for title in COST_COLUMNS)]
    table = _table("What it took (mean over seeds)", *columns)
    for method in comparison.methods:
        if rows := cost_rows(method, comparison.methods):
            lines = (rows, *zip(*rows.values(), strict=True))
            table.add_row(method.title, *("\n".join(cells) for cells in lines))
    return table
