"""The report as one HTML page that fetches nothing.

Every text of the data is untrusted: Jinja escapes what stands in the HTML, `embed` what stands in
the JSON, and the page's script sets text contents only. The page's Content-Security-Policy lets no
other script run and nothing be loaded.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pluralllm_app import __version__
from pluralllm_app.core.hidden_text import printable
from pluralllm_app.core.wording import many
from pluralllm_app.experiments.methods import Look
from pluralllm_app.experiments.tables import (
    COST_COLUMNS,
    COVERAGE_COLUMNS,
    COVERAGE_NOTE,
    FAIRNESS_NOTE,
    INTERVAL_NOTE,
    Column,
    cost_notes,
    cost_rows,
    coverage_cells,
    format_interval,
    score_columns,
)
from pluralllm_app.records.schema import Hardware, RunInfo
from pluralllm_app.report.charts import AXES
from pluralllm_app.report.predictions import Predictions
from pluralllm_app.report.sections import Section
from pluralllm_app.report.sources import ReportMethod, Source, Sources
from pluralllm_app.report.style import Spec, config
from pluralllm_app.settings import PATHS

PAGE_TITLE = "PluralLLM report"  # ends the title of every page
ASSETS = Path(__file__).parent / "assets"
# Paths of the legend's shapes around 0, like Vega's symbols of the same names.
SHAPES = {
    "circle": "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0Z",
    "square": "M-4,-4H4V4H-4Z",
    "triangle-up": "M0,-4L4.5,4H-4.5Z",
    "triangle-down": "M0,4L4.5,-4H-4.5Z",
    "triangle-left": "M-4,0L4,-4.5V4.5Z",
    "triangle-right": "M4,0L-4,-4.5V4.5Z",
    "diamond": "M0,-5L5,0L0,5L-5,0Z",
    "cross": "M-1.5,-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
}


@dataclass(frozen=True)
class Shown:
    """What the page says of predictions: them, or why there are none."""

    predictions: Predictions | None
    chart: Spec | None
    absent: str | None  # None: left out on purpose


def render(
    sources: Sources,
    notices: Sequence[str],
    sections: Sequence[Section],
    shown: Shown,
    looks: Mapping[str, Look],
) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("pluralllm_app.report", "assets"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_library(), (ASSETS / "page.js").read_text("utf-8")]
    columns = score_columns(sources.reserved)
    rows = _score_rows(sources.methods, columns)
    costs = [(method.title, found) for method in sources.methods if (found := _costs(method))]
    no_answers = shown.predictions is None and shown.absent is None
    contents = [
        ("methods", "All methods"),
        *((section.id, section.title) for section in sections),
        *([] if no_answers else [("predictions", "True and predicted answers")]),
        ("costs", "What it took"),
        ("settings", "Settings"),
    ]
    return environment.get_template("page.html").render(
        title=_name(sources),
        page_title=PAGE_TITLE,
        summary=_summary(sources),
        made=f"Made {datetime.now():%Y-%m-%d %H:%M} by pluralllm-app {__version__}.",
        notices=notices,
        contents=contents,
        columns=columns,
        rows=rows,
        intervals=any(cell["interval"] for row in rows for cell in row["cells"]),
        coverage=[
            (method.title, cells)
            for method in sources.methods
            if (cells := coverage_cells(method.result))
        ],
        coverage_columns=COVERAGE_COLUMNS,
        coverage_note=COVERAGE_NOTE,
        sections=sections,
        no_answers=no_answers,
        predictions=shown.predictions,
        no_predictions=shown.absent,
        costs=costs,
        cost_columns=COST_COLUMNS,
        cost_notes=cost_notes({method.kind for method in sources.methods}),
        fairness_note=FAIRNESS_NOTE,
        interval_note=INTERVAL_NOTE,
        sources=[{"name": source.path.name, "facts": _facts(source)} for source in sources.sources],
        facts=list(_facts(sources.sources[0])),
        settings=_settings(sources.sources),
        axes=list(AXES),
        looks=looks,
        number={title: index for index, title in enumerate(looks)},
        shapes=SHAPES,
        css=Markup((ASSETS / "page.css").read_text("utf-8")),
        hashes=Markup(" ".join(_hash(script) for script in scripts)),
        library=Markup(scripts[0]),
        script=Markup(scripts[1]),
        data=Markup(embed(_data(sections, shown, looks))),
    )


def embed(content: Any) -> str:
    """JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(_visible(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _visible(content: Any) -> Any:
    """Content of JSON whose texts hide nothing."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, Mapping):
        return {_visible(key): _visible(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_visible(value) for value in content]
    return content


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, as vl-convert ships them."""
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    if "</script" in bundle.lower():
        raise ValueError("the Vega bundle cannot stand in a script element")
    return bundle


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data(sections: Sequence[Section], shown: Shown, looks: Mapping[str, Look]) -> dict[str, Any]:
    """What the page's script reads."""
    predicted = shown.predictions
    look = looks[predicted.method] if predicted else None
    return {
        "charts": {chart.id: chart.spec for section in sections for chart in section.charts},
        "axes": AXES,
        "predictions": predicted and predicted.content | {"chart": shown.chart},
        "config": {
            "light": config(looks, dark=False, predicted=look),
            "dark": config(looks, dark=True, predicted=look),
        },
    }


def _name(sources: Sources) -> str:
    return sources.survey.name if sources.survey else sources.sources[0].path.name


def _summary(sources: Sources) -> str:
    roles = [group.role for group in sources.roster]
    groups = (
        f"{many(len(roles), 'group')}: {roles.count('train')} trained on, "
        f"{roles.count('evaluation')} never trained on"
        if roles
        else "groups not known yet"
    )
    seeds = f"seed{'s' * (len(sources.seeds) > 1)} {', '.join(map(str, sources.seeds)) or 'none'}"
    methods = many(len(sources.methods), "method")
    done = sum(run.finished for run in sources.runs)
    return f"{groups}. {methods}, {seeds}. {done} of {many(len(sources.runs), 'run')} finished."


def _score_rows(methods: Sequence[ReportMethod], columns: Sequence[Column]) -> list[dict[str, Any]]:
    # What is not finished, or has fewer seeds than others, is shown, but is the best of nothing.
    most = max((len(method.result.runs) for method in methods), default=0)
    compared = [method.finished and len(method.result.runs) == most for method in methods]
    by_column = []
    for column in columns:
        scores = [method.result.score(column.role, column.key) for method in methods]
        rated = [score for score, fair in zip(scores, compared, strict=True) if fair]
        means = [f"{score.mean:.4f}" for score in rated if score]
        choose = min if column.lower_is_better else max
        best = choose(means, key=float) if len(means) > 1 else None
        cells = []
        for score, fair in zip(scores, compared, strict=True):
            mean, _, interval = format_interval(score).partition(" ")
            cells.append({"mean": mean, "interval": interval, "best": fair and mean == best})
        by_column.append(cells)
    return [
        {
            "title": method.title + ("" if method.finished else " (not finished)"),
            "look": method.title,
            "pools": method.result.pools_answers,
            "cells": [cells[index] for cells in by_column],
        }
        for index, method in enumerate(methods)
    ]


def _costs(method: ReportMethod) -> dict[str, list[str]] | None:
    return cost_rows(method.result, method.peers) if method.finished else None


def _facts(source: Source) -> dict[str, str]:
    """What was run, where and when."""
    runs = [run.info for run in source.runs]
    machines = list(dict.fromkeys(_machine(run.hardware) for run in runs))
    versions = list(dict.fromkeys(_versions(run) for run in runs))
    survey = source.info.survey
    return {
        "directory": source.path.name,
        "survey": survey.name if survey else "not known",
        "survey fingerprint": survey.fingerprint if survey else "",
        "status": _status(source),
        "first run started": min((run.started for run in runs), default="-"),
        "last run finished": max((run.finished for run in runs if run.finished), default="-"),
        "hardware": " / ".join(machines) or "-",
        "versions": " / ".join(versions) or "-",
    }


def _machine(hardware: Hardware) -> str:
    gpus = ", ".join(hardware.gpus) or "no GPU"
    processor = ", ".join(filter(None, (hardware.processor, hardware.instructions)))
    return f"{processor}, {hardware.cpus or '?'} CPUs, {gpus}; {hardware.platform}"


def _versions(run: RunInfo) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())


def _status(source: Source) -> str:
    info = source.info
    if isinstance(info, RunInfo):
        return info.status
    cells = len(info.seeds) * sum(not method.same_as for method in info.methods.values())
    return f"{len(source.runs)} of {many(cells, 'run')} finished"


def _settings(sources: Sequence[Source]) -> list[tuple[str, list[str], bool]]:
    """Every setting with its value in each source, and whether these differ; such come first."""
    names = dict.fromkeys(name for source in sources for name in source.info.settings)
    for path in PATHS:  # they may name people
        names.pop(path, None)
    rows = []
    for name in names:
        values = [str(source.info.settings.get(name, "-")) for source in sources]
        rows.append((name, values, len(set(values)) > 1))
    return sorted(rows, key=lambda row: not row[2])
