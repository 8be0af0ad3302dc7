"""Which figures a report has, of which methods, and what is said below each."""

from collections.abc import Callable, Mapping, Sequence

from pluralllm_app.experiments.results import LOSS_WINDOW
from pluralllm_app.report import charts
from pluralllm_app.report.page import Chart, Figure
from pluralllm_app.report.series import (
    Row,
    difference_rows,
    fairness_rows,
    federated_of,
    group_rows,
    loss_rows,
    score_rows,
)
from pluralllm_app.report.sources import ReportMethod, Sources
from pluralllm_app.report.style import Spec, Style
from pluralllm_app.scoring.results import Role

ROLES: dict[Role, str] = {"evaluation": "groups never trained on", "train": "groups trained on"}
MOST_SHOWN = 4  # methods that are drawn at first where many would hide each other


def draw(sources: Sources, style: Style) -> list[Figure]:
    """All figures but that of predictions; those there is nothing for have no charts."""
    methods = [own for own in sources.methods if own.same_as is None and own.result.runs]
    return [
        _differences(methods, style),
        _loss(methods, style),
        _scores(methods, style),
        _groups(methods, style),
        _fairness(methods, style),
    ]


def _differences(methods: Sequence[ReportMethod], style: Style) -> Figure:
    rows = {role: difference_rows(methods, role) for role in ROLES}
    drawn = [row for own in rows.values() for row in own]
    titles = _titles(methods, drawn)
    references = dict.fromkeys(
        own.title for method in methods if (own := federated_of(method, methods))
    )
    return Figure(
        "differences",
        "Difference from federated training",
        f"Mean alignment over the groups, less that of {', '.join(references)} under the same seed "
        "on the same questions and contexts. Right of 0: better than federated training. "
        f"{_means(drawn, bars=True) or 'One seed, so no interval.'}",
        "No finished federated run has another method beside it on the same contexts.",
        titles,
        titles,
        False,
        _by_role(
            "differences",
            rows,
            lambda own, name: charts.difference_chart(own, name, titles, style),
        ),
    )


def _loss(methods: Sequence[ReportMethod], style: Style) -> Figure:
    rows = loss_rows(methods)
    titles = _titles(methods, rows)
    return Figure(
        "loss",
        "Training loss",
        f"Negative log-likelihood per option, averaged over {LOSS_WINDOW} rounds; it is a density, "
        f"so it may be negative. {_means(rows)}"
        "A round of a centralized method is as many optimiser steps as a client takes in one.",
        "No training loss is recorded: no method here was trained for more than one round.",
        titles,
        titles,
        True,
        [Chart("loss", "Training loss", charts.loss_chart(rows, titles, style))] if rows else [],
    )


def _scores(methods: Sequence[ReportMethod], style: Style) -> Figure:
    rows = {role: score_rows(methods, role) for role in ROLES}
    titles = _titles(methods, [row for own in rows.values() for row in own])
    near = [method for method in methods if not (method.spec and method.spec.far_off)]
    shown = [method.title for method in near if method.title in titles]
    return Figure(
        "alignment",
        "Alignment while training",
        "Mean over the groups at each evaluation; of train groups only on questions kept from "
        "training. Horizontal rules: methods without training of a predictor. "
        f"{_means([row for own in rows.values() for row in own])}",
        "No run has an evaluation yet.",
        titles,
        shown or titles,
        True,
        _by_role(
            "alignment",
            rows,
            lambda own, name: charts.score_chart(own, name, shown or titles, style),
        ),
    )


def _groups(methods: Sequence[ReportMethod], style: Style) -> Figure:
    rows = {role: group_rows(methods, role) for role in ROLES}
    titles = _titles(methods, [row for own in rows.values() for row in own])
    first = {method.title for method in methods if method.spec and method.spec.shown_first}
    shown = [title for title in titles if title in first] or titles
    shown = shown[:MOST_SHOWN]
    return Figure(
        "groups",
        "Alignment of each group",
        f"Groups in the order of {titles[0] if titles else 'the first method'}. "
        f"{_means([row for own in rows.values() for row in own], bars=True)}",
        "No run has an evaluation yet.",
        titles,
        shown,
        False,
        _by_role("groups", rows, lambda own, name: charts.group_chart(own, name, shown, style)),
    )


def _fairness(methods: Sequence[ReportMethod], style: Style) -> Figure:
    rows = fairness_rows(methods)
    titles = _titles(methods, rows)
    by_role: dict[Role, list[Row]] = {
        role: [row for row in rows if row["role"] == role] for role in ROLES
    }
    return Figure(
        "fairness",
        "Fairness index",
        "FI = 1 / (1 + CoV²). It saturates: even a uniform guess comes near 1, since it is about "
        "as bad for every group. Read it together with the mean and the worst group of the table. "
        f"{_means(rows, bars=True)}",
        "No run has an evaluation yet.",
        titles,
        titles,
        False,
        _by_role(
            "fairness", by_role, lambda own, name: charts.fairness_chart(own, name, titles, style)
        ),
    )


def _by_role(
    kind: str, rows: Mapping[Role, list[Row]], chart: Callable[[list[Row], str], Spec]
) -> list[Chart]:
    """A chart for each role there are rows of; `chart` gets these and what the role is called."""
    return [
        Chart(f"{kind}-{role}", _capital(name), chart(rows[role], name))
        for role, name in ROLES.items()
        if rows[role]
    ]


def _titles(methods: Sequence[ReportMethod], rows: Sequence[Row]) -> list[str]:
    drawn = {row["method"] for row in rows}
    return [own.title for own in methods if own.title in drawn]


def _means(rows: Sequence[Row], *, bars: bool = False) -> str:
    if all(row["low"] is None for row in rows):
        return ""
    return f"Mean over the seeds; {'bars' if bars else 'bands'}: 95 % bootstrap interval. "


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
