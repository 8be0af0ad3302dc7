"""The charts, as Vega-Lite specifications: one function per figure, no data of its own.

A chart filters on the parameter `shown`, the titles of the methods that are drawn, so that the
page can hide methods without a new chart.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

from pluralllm_app.report.series import Row
from pluralllm_app.report.style import Spec, Style

# What the horizontal axis of a curve can be; the charts have the first, the page changes it.
AXES = {
    "rounds": "rounds",
    "steps": "optimiser steps, one after another",
    "tasks": "tasks trained on, by all groups together",
    "seconds": "seconds of training, without evaluations",
}
ALIGNMENT = "alignment score (1 is perfect)"
DIFFERENCE = "difference in alignment score"
FORMS = {"over groups": "circle", "per question": "diamond"}
SHARES = ["true", "predicted"]

_ROWS = alt.NamedData("rows")


def loss_chart(rows: Sequence[Row], shown: Sequence[str], style: Style) -> Spec:
    """Paper figure 2: training loss against rounds, see `AXES`."""
    encodings = style.encodings(shown)
    del encodings["shape"]
    base = _shown()
    x, y = _rounds(), alt.Y("loss:Q").title("training loss (nats)").scale(zero=False)
    line = base.mark_line(strokeWidth=2).encode(x=x, y=y, **encodings)
    hover = base.mark_point(opacity=0, size=60, aria=False).encode(
        x=x, y=y, tooltip=_tooltip("loss", "rounds", "steps", "tasks", "seconds")
    )
    alt_text = "Line chart of the training loss in nats, a line per method."
    chart = alt.layer(*_band(base, x, rows, encodings["color"]), line, hover)
    return style.finish(
        chart, rows, height=320, title="Training loss", alt_text=alt_text, shown=shown
    )


def score_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Mean alignment of a role against rounds, see `AXES`; untrained methods are rules."""
    encodings = style.encodings(shown)
    base = _shown()
    trained = base.transform_filter("!datum.rule")
    x, y = _rounds(), alt.Y("alignment:Q").title(ALIGNMENT).scale(zero=False)
    tooltip = _tooltip("alignment", "rounds", "steps", "tasks", "seconds")
    color, dash = encodings["color"], encodings["strokeDash"]
    layers = [
        *_band(trained, x, rows, color),
        base.transform_filter("datum.rule")
        .mark_rule(strokeWidth=2)
        .encode(y=y, color=color, strokeDash=dash, tooltip=_tooltip("alignment")),
        trained.mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=dash),
        trained.mark_point(filled=True, size=60, opacity=1).encode(
            x=x, y=y, color=color, shape=encodings["shape"], tooltip=tooltip
        ),
    ]
    alt_text = (
        f"Line chart of the mean alignment score of {role}, a line per "
        "trained method and a horizontal rule per method without training."
    )
    chart = alt.layer(*layers)
    return style.finish(
        chart, rows, height=320, title=f"Alignment of {role}", alt_text=alt_text, shown=shown
    )


def few_shot_chart(rows: Sequence[Row], shown: Sequence[str], style: Style) -> Spec:
    """Mean alignment of groups never trained on against the number of context questions."""
    encodings = style.encodings(shown)
    base = _shown()
    numbers = sorted({row["context"] for row in rows})
    x = (
        alt.X("context:Q")
        .title("questions whose answers are given")
        .scale(type="symlog", domain=[0, numbers[-1]], nice=False)
        .axis(values=numbers, format="d")
    )
    y = alt.Y("alignment:Q").title(ALIGNMENT).scale(zero=False)
    color, dash = encodings["color"], encodings["strokeDash"]
    chart = alt.layer(
        *_band(base, x, rows, color),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=dash),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=x,
            y=y,
            color=color,
            shape=encodings["shape"],
            tooltip=_tooltip("alignment", "context"),
        ),
    )
    title = "Alignment from few answers and many"
    alt_text = "Line chart of the mean alignment score of groups never trained on against the "
    alt_text += "number of context questions, a line per method."
    return style.finish(chart, rows, height=320, title=title, alt_text=alt_text, shown=shown)


def group_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Paper figure 4: alignment of every group of a role, best of the first method on top."""
    encodings = style.encodings(shown)
    first = {row["group"]: row["alignment"] or 0.0 for row in reversed(rows)}
    order = sorted(first, key=lambda group: -first[group])
    rows = [row | {"place": order.index(row["group"])} for row in _ranked(rows, style)]
    base = _shown().encode(
        y=alt.Y("group:N")
        .title(None)
        .sort(field="place", op="min")
        .scale(paddingInner=0.35)
        .axis(labelLimit=130, grid=True, ticks=False, domain=False),
        yOffset=alt.YOffset("method:N").sort(field="rank", op="min"),
        color=encodings["color"],
    )
    x = alt.X("alignment:Q").title(ALIGNMENT).scale(zero=False).axis(tickCount=6)
    chart = alt.layer(
        *_bars(base, rows, ALIGNMENT),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            x=x,
            shape=encodings["shape"],
            tooltip=[alt.Tooltip("group:N"), *_tooltip("alignment")],
        ),
    )
    alt_text = f"Dot plot of the alignment score of each of {role}, with intervals, by method."
    title = f"Alignment of {role}, one by one"
    return style.finish(chart, rows, height=_step(9), title=title, alt_text=alt_text, shown=shown)


def difference_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Difference of each method from federated training, see `series.difference_rows`."""
    titles, looks = list(style.looks), list(style.looks.values())
    base = _by_method(style)
    shape = alt.Scale(domain=titles, range=[look.shape for look in looks])
    x = alt.X("difference:Q").title(DIFFERENCE).scale(padding=26).axis(tickCount=4, grid=True)
    chart = alt.layer(
        alt.Chart(_ROWS)
        .transform_aggregate(rows="count()")  # one row, for one line
        .mark_rule(strokeWidth=1.5, aria=False)
        .encode(x=alt.datum(0)),
        *_bars(base, rows, DIFFERENCE),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            shape=alt.Shape("method:N", scale=shape, legend=None),
            tooltip=_tooltip("difference"),
        ),
        base.mark_text(dy=-11, fontSize=11, aria=False).encode(
            x=x, text=alt.Text("difference:Q", format="+.4f")
        ),
    )
    alt_text = f"Dot plot of each method's alignment less the federated one's, {role}, with a zero."
    title = f"Alignment less that of federated training, {role}"
    ranked = _ranked(rows, style)
    height = alt.Step(34)
    return style.finish(chart, ranked, height=height, title=title, alt_text=alt_text, shown=shown)


def fairness_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Paper figure 5: the fairness index of a role, over group means and per question."""
    legend: Any = None if style.page else alt.Legend(title=None, orient="bottom")
    form = alt.Scale(domain=list(FORMS), range=list(FORMS.values()))
    base = _by_method(style).encode(
        yOffset=alt.YOffset("form:N", scale=alt.Scale(domain=list(FORMS)))
    )
    axis = "fairness index"
    x = alt.X("fi:Q").title(axis).scale(zero=False).axis(tickCount=4)
    chart = alt.layer(
        *_bars(base, rows, axis),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            shape=alt.Shape("form:N", scale=form, legend=legend),
            tooltip=[alt.Tooltip("form:N"), *_tooltip("fi")],
        ),
    )
    alt_text = f"Dot plot of both forms of the fairness index over {role}, a row per method."
    title = f"Fairness over {role}"
    ranked = _ranked(rows, style)
    height = _step(13)
    return style.finish(chart, ranked, height=height, title=title, alt_text=alt_text, shown=shown)


def prediction_chart(rows: Sequence[Row], title: str | list[str], style: Style) -> Spec:
    """Paper figure 3: a group's shares of the options of one question, true and predicted.

    Args:
        rows: `option` (its number), `kind` (label, true or predicted), `share`, `text`.
    """
    base = alt.Chart(_ROWS).encode(
        y=alt.Y("option:O").axis(None).scale(paddingInner=0.12),
        yOffset=alt.YOffset("kind:N", scale=alt.Scale(domain=["label", *SHARES])),
    )
    share = (
        alt.X("share:Q")
        .title("share of the group that picks the option")
        .scale(domain=[0, 1.1], nice=False)
        .axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    )
    # The colours are the config's: grey, and that of the method that predicts.
    fill = alt.Fill(
        "kind:N",
        scale=alt.Scale(domain=SHARES, range="ordinal"),
        legend=None if style.page else alt.Legend(title=None, orient="bottom"),
    )
    bars = base.transform_filter("datum.kind != 'label'")
    chart = alt.layer(
        bars.mark_bar(cornerRadiusEnd=2).encode(
            x=share,
            fill=fill,
            tooltip=[
                alt.Tooltip("text:N", title="option"),
                alt.Tooltip("kind:N", title="shares"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        ),
        bars.mark_text(align="left", dx=4, fontSize=11).encode(
            x=share, text=alt.Text("share:Q", format=".1%")
        ),
        base.transform_filter("datum.kind == 'label'")
        .mark_text(align="left", limit=alt.ExprRef("width"), aria=False)
        .encode(x=alt.value(0), text="text:N"),
    )
    alt_text = "Bar chart of the true and the predicted share of each option; the table has both."
    return style.finish(chart, rows, height=_step(15), title=title, alt_text=alt_text)


def _shown() -> alt.Chart:
    return alt.Chart(_ROWS).transform_filter("indexof(shown, datum.method) >= 0")


def _by_method(style: Style) -> alt.Chart:
    """A row for each method that is shown, named at its left; the data are `_ranked`."""
    return _shown().encode(
        y=alt.Y("method:N")
        .title(None)
        .sort(field="rank", op="min")
        .scale(paddingInner=0.3)
        .axis(labelLimit=180, labelFontSize=11, grid=True, ticks=False, domain=False),
        color=alt.Color("method:N", scale=alt.Scale(domain=list(style.looks)), legend=None),
    )


def _ranked(rows: Sequence[Row], style: Style) -> list[Row]:
    """Rows with the place of their method: a list of names would become part of an expression."""
    titles = list(style.looks)
    return [row | {"rank": titles.index(row["method"])} for row in rows]


def _step(pixels: int) -> alt.Step:
    """A height of so many pixels for each method (form, bar) of each row."""
    return alt.Step(pixels, **{"for": "offset"})


def _rounds() -> alt.X:
    return alt.X("rounds:Q").title(AXES["rounds"]).axis(tickCount=6, format="~s")


def _band(base: alt.Chart, x: alt.X, rows: Sequence[Row], color: alt.Color) -> list[alt.Chart]:
    if all(row["low"] is None for row in rows):
        return []
    area = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.15, aria=False)
    return [area.encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=color)]


def _bars(base: alt.Chart, rows: Sequence[Row], title: str) -> list[alt.Chart]:
    if all(row["low"] is None for row in rows):
        return []
    rule = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    return [rule.encode(x=alt.X("low:Q").title(title), x2=alt.X2("high:Q"))]


def _tooltip(value: str, *costs: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("method:N"),
        alt.Tooltip(f"{value}:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f", title="95 % interval from"),
        alt.Tooltip("high:Q", format=".4f", title="to"),
        *(alt.Tooltip(f"{cost}:Q", format=",.0f") for cost in costs),
    ]
