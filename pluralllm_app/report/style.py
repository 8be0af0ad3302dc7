"""How methods and charts look, in light and in dark.

Colour, dash and shape belong to a method and are the same in every chart; no two methods are told
apart by colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from pluralllm_app.experiments.methods import METHODS, Look
from pluralllm_app.report.series import Row
from pluralllm_app.report.sources import ReportMethod

TRUE = "#8a929c"  # colour of true shares
# Text, labels, grid
_LIGHT = ("#22272e", "#59636e", "#e3e6ea")
_DARK = ("#d9dde3", "#a3abb5", "#333a42")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"

Spec = dict[str, Any]


def looks(methods: Sequence[ReportMethod]) -> dict[str, Look]:
    """The look of every method, by title.

    A method of an unknown kind, or one whose look is taken, gets the look of a kind that the report
    has not.
    """
    kinds = {method.kind for method in methods}
    spare = [spec.look for kind, spec in METHODS.items() if kind not in kinds]
    spare = spare or [spec.look for spec in METHODS.values()]
    found: dict[str, Look] = {}
    used = 0
    for method in methods:
        look = method.spec.look if method.spec else None
        if look is None or look in found.values():
            look, used = spare[used % len(spare)], used + 1
        found[method.title] = look
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
        # Altair checks what no data can change, which takes as long as everything else together.
        spec: Spec = chart.properties(**properties).to_dict(validate=False)
        del spec["$schema"], spec["config"]
        # Not by way of Altair, which would copy every row.
        return spec | {"datasets": {"rows": list(rows)}}

    def encodings(self, shown: Sequence[str]) -> dict[str, Any]:
        """Colour and, where a mark has them, dash and shape of a method."""
        titles, looks = list(self.looks), list(self.looks.values())
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
                scale=alt.Scale(domain=titles, range=[list(look.dash) for look in looks]),
                legend=legend,
            ),
            "shape": alt.Shape(
                "method:N",
                scale=alt.Scale(domain=titles, range=[look.shape for look in looks]),
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
