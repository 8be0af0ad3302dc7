"""How methods and charts look, in light and in dark.

Colour, dash and shape belong to a method and are the same in every chart; no two methods are told
apart by colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from pluralllm_app.report.series import Row
from pluralllm_app.report.sources import ReportMethod

TRUE = "#8a929c"  # colour of true shares
# Text, labels, grid
_LIGHT = ("#22272e", "#59636e", "#e3e6ea")
_DARK = ("#d9dde3", "#a3abb5", "#333a42")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"

Spec = dict[str, Any]


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


def looks(methods: Sequence[ReportMethod]) -> dict[str, Look]:
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
        "rule": {"color": faint},
    }
