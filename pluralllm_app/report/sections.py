"""The sections of a report that have charts: which methods each shows, and what it says below."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pluralllm_app.experiments.results import LOSS_WINDOW
from pluralllm_app.experiments.tables import few_shot_notes
from pluralllm_app.report import charts
from pluralllm_app.report.series import (
    Row,
    difference_rows,
    fairness_rows,
    federated_of,
    few_shot_rows,
    group_rows,
    loss_rows,
    score_rows,
)
from pluralllm_app.report.sources import ReportMethod, Sources
from pluralllm_app.report.style import Spec, Style
from pluralllm_app.scoring.results import Role

ROLES: dict[Role, str] = {"evaluation": "groups never trained on", "train": "groups trained on"}
MOST_SHOWN = 4  # methods that are drawn at first where many would hide each other


@dataclass(frozen=True)
class Chart:
    """One chart of a section."""

    id: str
    title: str
    spec: Spec


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts with one legend."""

    id: str
    title: str
    caption: str
    absent: str  # said where there is nothing to draw
    methods: Sequence[str] = ()  # titles
    shown: Sequence[str] = ()  # of these, the ones that are drawn at first
    axes: bool = False  # whether its horizontal axis can be any of `charts.AXES`
    charts: Sequence[Chart] = ()


def draw(sources: Sources, style: Style) -> list[Section]:
    """All sections but that of predictions; those that have nothing to draw have no charts."""
    methods = [
        method for method in sources.methods if method.same_as is None and method.result.runs
    ]
    return [
        _differences(methods, style),
        _loss(methods, style),
        _scores(methods, style),
        _few_shot(methods, style),
        _groups(methods, style),
        _fairness(methods, style),
    ]


def _differences(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = {role: difference_rows(methods, role) for role in ROLES}
    drawn = _all(rows)
    titles = _titles(methods, drawn)
    compared = (federated_of(method, methods) for method in methods)
    references = dict.fromkeys(federated.title for federated in compared if federated)
    return Section(
        id="differences",
        title="Difference from federated training",
        caption=f"Mean alignment over the groups, less that of {', '.join(references)} under the "
        "same seed on the same questions and contexts. Right of 0: better than federated training. "
        f"{_means(drawn, bars=True) or 'One seed, so no interval.'}",
        absent="No finished federated run has another method beside it on the same contexts.",
        methods=titles,
        shown=titles,
        charts=_by_role(
            "differences",
            rows,
            lambda found, name: charts.difference_chart(found, name, titles, style),
        ),
    )


def _loss(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = loss_rows(methods)
    titles = _titles(methods, rows)
    title = "Training loss"
    return Section(
        id="loss",
        title=title,
        caption=f"Negative log-likelihood per option, averaged over {LOSS_WINDOW} rounds; it is a "
        f"density, so it may be negative. {_means(rows)}"
        "A round of a centralized method is as many optimiser steps as a client takes in one.",
        absent="No training loss is recorded: no method here was trained for more than one round.",
        methods=titles,
        shown=titles,
        axes=True,
        charts=[Chart("loss", title, charts.loss_chart(rows, titles, style))] if rows else [],
    )


def _scores(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = {role: score_rows(methods, role) for role in ROLES}
    drawn = _all(rows)
    titles = _titles(methods, drawn)
    shown = _near(methods, titles)
    return Section(
        id="alignment",
        title="Alignment while training",
        caption="Mean over the groups at each evaluation; of train groups only on questions kept "
        "from training. Horizontal rules: methods without training of a predictor. "
        f"{_means(drawn)}",
        absent="No run has an evaluation yet.",
        methods=titles,
        shown=shown,
        axes=True,
        charts=_by_role(
            "alignment", rows, lambda found, name: charts.score_chart(found, name, shown, style)
        ),
    )


def _few_shot(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = few_shot_rows(methods)
    titles = _titles(methods, rows)
    shown = _near(methods, titles)
    title = "Alignment from few answers and many"
    notes = few_shot_notes([method.result for method in methods]) if rows else []
    return Section(
        id="few-shot",
        title=title,
        caption=" ".join([*notes, _means(rows)]),
        absent="Nothing was scored at other numbers of context questions: `pluralllm compare` "
        "does so where there are groups never trained on.",
        methods=titles,
        shown=shown,
        charts=[Chart("few-shot", title, charts.few_shot_chart(rows, shown, style))]
        if rows
        else [],
    )


def _near(methods: Sequence[ReportMethod], titles: Sequence[str]) -> Sequence[str]:
    """Of `titles`, those whose scores are not so far off that the others would look alike."""
    near = {method.title for method in methods if not (method.spec and method.spec.far_off)}
    return [title for title in titles if title in near] or titles


def _groups(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = {role: group_rows(methods, role) for role in ROLES}
    drawn = _all(rows)
    titles = _titles(methods, drawn)
    first = {method.title for method in methods if method.spec and method.spec.shown_first}
    shown = ([title for title in titles if title in first] or titles)[:MOST_SHOWN]
    return Section(
        id="groups",
        title="Alignment of each group",
        caption=f"Groups in the order of {titles[0] if titles else 'the first method'}. "
        f"{_means(drawn, bars=True)}",
        absent="No run has an evaluation yet, or the scores of single groups are not known, since "
        "scores = mean sums them.",
        methods=titles,
        shown=shown,
        charts=_by_role(
            "groups", rows, lambda found, name: charts.group_chart(found, name, shown, style)
        ),
    )


def _fairness(methods: Sequence[ReportMethod], style: Style) -> Section:
    rows = {role: fairness_rows(methods, role) for role in ROLES}
    drawn = _all(rows)
    titles = _titles(methods, drawn)
    return Section(
        id="fairness",
        title="Fairness index",
        caption="FI = 1 / (1 + CoV²). It saturates: even a uniform guess comes near 1, since it is "
        "about as bad for every group. Read it together with the mean and the worst group of the "
        f"table. {_means(drawn, bars=True)}",
        absent="No run has an evaluation of two groups yet.",
        methods=titles,
        shown=titles,
        charts=_by_role(
            "fairness", rows, lambda found, name: charts.fairness_chart(found, name, titles, style)
        ),
    )


def _by_role(
    kind: str, rows: Mapping[Role, list[Row]], chart: Callable[[list[Row], str], Spec]
) -> list[Chart]:
    """A chart for each role there are rows of; `chart` gets these and what the role is called."""
    return [
        Chart(f"{kind}-{role}", name[0].upper() + name[1:], chart(rows[role], name))
        for role, name in ROLES.items()
        if rows[role]
    ]


def _all(rows: Mapping[Role, list[Row]]) -> list[Row]:
    return [row for of_role in rows.values() for row in of_role]


def _titles(methods: Sequence[ReportMethod], rows: Iterable[Row]) -> list[str]:
    """The titles of the methods there are rows of."""
    drawn = {row["method"] for row in rows}
    return [method.title for method in methods if method.title in drawn]


def _means(rows: Sequence[Row], *, bars: bool = False) -> str:
    if all(row["low"] is None for row in rows):
        return ""
    return f"Mean over the seeds; {'bars' if bars else 'bands'}: 95 % bootstrap interval. "
