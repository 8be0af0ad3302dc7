"""The charts, as Vega-Lite specifications: one function per figure, no data of its own.

A chart filters on the parameter `shown`, the titles of the methods that are drawn, so that the
page can hide methods without a new chart. Colour, dash and shape belong to a method and are the
same in every chart; no two methods are told apart by colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from pluralllm_app.report.series import Row
from pluralllm_app.report.sources import Method

# What the horizontal axis of a curve can be; the charts have the first, the page changes it.
AXES = {
    "rounds": "rounds",
    "steps": "optimiser steps, one after another",
    "tasks": "tasks trained on, by all groups together",
    "seconds": "seconds of training and scoring, in one process",
}
ALIGNMENT = "alignment score (1 is perfect)"
FORMS = {"over groups": "circle", "per question": "diamond"}
SHARES = ["true", "predicted"]
TRUE = "#8a929c"  # colour of true shares
# Text, labels, grid
_LIGHT = ("#22272e", "#59636e", "#e3e6ea")
_DARK = ("#d9dde3", "#a3abb5", "#333a42")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"

Spec = dict[str, Any]

_ROWS = alt.NamedData("rows")


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in light and in dark."""

    light: str
    dark: str
    dash: tuple[int, ...]
    shape: str


# Lightness differs along with hue, and neighbours differ in dash and shape.
_LOOKS = {
    "federated": Look("#0069b4", "#56b4f5", (), "circle"),
    "centralized-equal-tasks": Look("#d55e00", "#ff9350", (8, 3), "square"),
    "centralized-paper": Look("#b07d00", "#f0c040", (2, 2), "triangle-up"),
    "centralized-equal-steps": Look("#8a4b1f", "#d0a07a", (10, 3, 2, 3), "triangle-down"),
    "centralized-converged": Look("#a8325e", "#f28bb0", (5, 2), "diamond"),
    "local-only": Look("#6a4fb3", "#b9a5f5", (3, 4), "cross"),
    "consensus": Look("#00805f", "#3ccfa0", (6, 4), "square"),
    "low-rank": Look("#c0559a", "#f5a5d5", (2, 3), "diamond"),
    "weighted-consensus": Look("#2b8ca3", "#7fd8ea", (10, 4), "triangle-right"),
    "ridge": Look("#67790f", "#bccf5a", (4, 2, 1, 2), "triangle-left"),
    "uniform": Look("#707070", "#a8a8a8", (1, 3), "cross"),
}


def looks(methods: Sequence[Method]) -> dict[str, Look]:
    """The look of every method, by title; what is no kind's own goes to those beyond the kinds."""
    kinds = {method.kind for method in methods}
    spare = [look for kind, look in _LOOKS.items() if kind not in kinds] or list(_LOOKS.values())
    found: dict[str, Look] = {}
    used = 0
    for method in methods:
        own = _LOOKS.get(method.kind)
        if own is None or own in found.values():
            own, used = spare[used % len(spare)], used + 1
        found[method.title] = own
    return found


@dataclass(frozen=True)
class Style:
    """What all charts of one rendering share."""

    looks: Mapping[str, Look]
    page: bool  # in the page, which has titles and legends of its own, or a file

    def finish(
        self,
        chart: alt.LayerChart | alt.FacetChart,
        rows: Sequence[Row],
        *,
        height: int | alt.Step,
        title: str | list[str],
        alt_text: str,
        shown: Sequence[str] = (),
    ) -> Spec:
        """Add data, the parameter `shown`, title and size; returns the specification."""
        properties: dict[str, Any] = {"height": height, "description": alt_text}
        if self.page:
            autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
            properties |= {"width": "container", "autosize": autosize}
        else:
            properties |= {"width": 640, "title": title}
        chart = chart.add_params(alt.param(name="shown", value=list(shown)))
        spec: Spec = chart.properties(**properties).to_dict()
        del spec["$schema"], spec["config"]
        # Not by way of Altair, which would copy and check every row.
        return spec | {"datasets": {"rows": list(rows)}}

    def encodings(self, shown: Sequence[str]) -> dict[str, Any]:
        """Colour and, where a mark has them, dash and shape of a method."""
        titles, own = list(self.looks), list(self.looks.values())
        legend: Any = None
        if not self.page:
            legend = alt.Legend(
                title=None,
                orient="bottom",
                columns=3,
                values=list(shown),
                symbolType="stroke",
                symbolOpacity=1,
                symbolStrokeWidth=2,
            )
        # Without a range of its own the colours are the config's, light or dark.
        return {
            "color": alt.Color("method:N", scale=alt.Scale(domain=titles), legend=legend),
            "strokeDash": alt.StrokeDash(
                "method:N",
                scale=alt.Scale(domain=titles, range=[list(look.dash) for look in own]),
                legend=legend,
            ),
            "shape": alt.Shape(
                "method:N",
                scale=alt.Scale(domain=titles, range=[look.shape for look in own]),
                legend=legend,
            ),
        }


def config(methods: Mapping[str, Look], *, dark: bool, predicted: Look | None = None) -> Spec:
    """The config of all charts in light or dark; the page's CSS has the same greys.

    Args:
        predicted: look of the method whose predictions are shown.
    """

    def colour(look: Look) -> str:
        return look.dark if dark else look.light

    text, faint, grid = _DARK if dark else _LIGHT
    return {
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "range": {
            "category": [colour(look) for look in methods.values()],
            "ordinal": [TRUE, colour(predicted) if predicted else TRUE],
        },
        "axis": {
            "labelColor": faint,
            "titleColor": text,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "gridColor": grid,
            "domainColor": faint,
            "tickColor": faint,
            "titlePadding": 8,
        },
        "legend": {"labelColor": text, "labelFontSize": 12, "labelLimit": 260},
        "title": {"color": text, "fontSize": 15, "anchor": "start", "offset": 12},
        "text": {"color": text, "fontSize": 12},
    }


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


def group_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Paper figure 4: alignment of every group of a role, best of the first method on top."""
    encodings = style.encodings(shown)
    first = {row["group"]: row["alignment"] or 0.0 for row in reversed(rows)}
    order = sorted(first, key=lambda group: -first[group])
    titles = list(style.looks)
    # Sorted by numbers: a list of names would become part of an expression.
    rows = [
        row | {"place": order.index(row["group"]), "rank": titles.index(row["method"])}
        for row in rows
    ]
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


def fairness_chart(rows: Sequence[Row], role: str, shown: Sequence[str], style: Style) -> Spec:
    """Paper figure 5: the fairness index of a role, over group means and per question."""
    titles = list(style.looks)
    rows = [row | {"rank": titles.index(row["method"])} for row in rows]
    legend: Any = None if style.page else alt.Legend(title=None, orient="bottom")
    form = alt.Scale(domain=list(FORMS), range=list(FORMS.values()))
    base = _shown().encode(
        y=alt.Y("method:N")
        .title(None)
        .sort(field="rank", op="min")
        .scale(paddingInner=0.3)
        .axis(labelLimit=180, labelFontSize=11, grid=True, ticks=False, domain=False),
        yOffset=alt.YOffset("form:N", scale=alt.Scale(domain=list(FORMS))),
        color=alt.Color("method:N", scale=alt.Scale(domain=titles), legend=None),
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
    return style.finish(chart, rows, height=_step(13), title=title, alt_text=alt_text, shown=shown)


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
