from dataclasses import replace
from pathlib import Path

import pytest

from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.report.charts import difference_chart, group_chart
from pluralllm_app.report.sources import ReportMethod, read_sources
from pluralllm_app.report.style import Style, config, looks
from tests.support.runs import write_run


@pytest.fixture
def method(tmp_path: Path) -> ReportMethod:
    return read_sources([write_run(tmp_path / "a")]).methods[0]


def test_every_method_has_a_look_of_its_own_whichever_others_there_are(
    method: ReportMethod,
) -> None:
    everyone = looks([replace(method, kind=name, title=name) for name in METHODS])
    assert len({look.light for look in everyone.values()}) == len(METHODS)
    assert len({(look.dash, look.shape) for look in everyone.values()}) == len(METHODS)
    assert looks([replace(method, kind="ridge", title="ridge")])["ridge"] == everyone["ridge"]


def test_several_runs_of_one_kind_look_different(method: ReportMethod) -> None:
    several = looks([replace(method, title=f"run {number}") for number in range(6)])
    assert len({look.light for look in several.values()}) == 6


def test_colours_come_in_the_order_of_the_methods(method: ReportMethod) -> None:
    own = looks([replace(method, kind=name, title=name) for name in ("uniform", "federated")])
    for dark in (False, True):
        found = config(own, dark=dark)["range"]["category"]
        assert found == [look.dark if dark else look.light for look in own.values()]


def test_no_text_of_the_data_becomes_part_of_an_expression(method: ReportMethod) -> None:
    title = "'] || alert(1) \u2028"
    own = looks([replace(method, title=title)])
    row = {"method": title, "group": title, "alignment": 0.5, "low": None, "high": None}
    chart = group_chart([row], "groups", [title], Style(own, page=True))
    (layer,) = chart["layer"]
    assert layer["encoding"]["y"]["sort"] == {"field": "place", "op": "min"}
    assert layer["encoding"]["yOffset"]["sort"] == {"field": "rank", "op": "min"}


def test_differences_have_a_zero_line_and_bars_only_where_there_are_intervals(
    method: ReportMethod,
) -> None:
    own = looks([method])
    row = {"method": method.title, "difference": 0.1, "low": None, "high": None}
    for low, marks in (
        (None, ["rule", "point", "text"]),
        (0.05, ["rule", "rule", "point", "text"]),
    ):
        chart = difference_chart([row | {"low": low}], "groups", [], Style(own, page=False))
        assert [layer["mark"]["type"] for layer in chart["layer"]] == marks
        assert chart["layer"][0]["encoding"]["x"] == {"datum": 0}
