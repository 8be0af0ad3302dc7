import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair
import pytest
from rich.console import Console

from pluralllm_app.cli.main import report_command
from pluralllm_app.errors import UserError
from pluralllm_app.report import build
from pluralllm_app.report.page import embed
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.hostile import GROUPS, TEXTS
from tests.support.page_reader import PageReader
from tests.support.runs import ROSTER, make_entry, write_run

Write = Callable[..., str]


def test_a_page_loads_nothing_and_lets_nothing_load(reported: Path) -> None:
    page = reported.read_text("utf-8")
    found = PageReader(page)
    assert all(load.startswith(("#", "color: var(", "background: var(")) for load in found.loads)
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_chart_is_one_of_vega_lite(reported: Path) -> None:
    charts = json.loads(PageReader(reported.read_text("utf-8")).data)["charts"]
    assert len(charts) == 9
    for chart in charts.values():
        altair.LayerChart.validate(chart)  # raises an error where it is none


def test_hostile_texts_stay_texts(reported: Path) -> None:
    page = reported.read_text("utf-8")
    found = PageReader(page)
    assert found.tags.count("script") == 3
    assert "img" not in found.tags
    assert "i" not in found.tags
    assert "Survey </title><script>alert('name')</script>" in found.text
    data = json.loads(found.data)
    assert {group["name"] for group in data["predictions"]["groups"]} == set(GROUPS)
    texts = {question[1].rpartition(" (")[0] for question in data["predictions"]["questions"]}
    assert texts == set(TEXTS)


def test_embedded_json_cannot_end_its_element() -> None:
    content = {"a": "</script><!--<script>&\u2028\x00"}
    text = embed(content)
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!--<script>&\u2028\\x00"}


def test_tables_have_the_scores_of_the_comparison(reported: Path) -> None:
    text = PageReader(reported.read_text("utf-8")).text
    for part in (
        "5 groups: 3 trained on, 2 never trained on. 4 methods, seeds 0, 1. 8 of 8 runs finished.",
        "never trained on, reserved questions",
        "Pools answers",
        "90 %, 95 %: first evaluated round",
        "Intervals: 95 % percentile bootstrap",
        "less that of Federated GPO under the same seed",
        "torch 2",
        "This page holds answers of the groups",
    ):
        assert part in text


def test_shares_are_those_of_the_survey(reported: Path, hostile_survey: PreparedSurvey) -> None:
    predictions = json.loads(PageReader(reported.read_text("utf-8")).data)["predictions"]
    ids = [question[0] for question in predictions["questions"]]
    for group in predictions["groups"]:
        own = hostile_survey.preferences(group["name"])
        for question, true, predicted, score in group["answers"]:
            position = [f"q&{i} <" for i in own.questions].index(ids[question])
            start = own.starts[position]
            shares = own.shares[start : start + own.options[position]]
            assert true == [round(1000 * float(share)) for share in shares]
            assert sum(predicted) == pytest.approx(1000, abs=2)
            assert 0 <= score <= 1
    # 3 of its questions are the context of a group never trained on; a train group shows
    # what is kept from training.
    sizes = {group["role"]: len(group["answers"]) for group in predictions["groups"]}
    assert sizes["evaluation"] == 21
    assert 1 <= sizes["train"] < 21


@pytest.mark.slow
def test_figures_are_written_as_png_and_svg(comparison: Path, tmp_path: Path) -> None:
    log = io.StringIO()
    build.report([comparison], tmp_path / "page.html", None, True, Console(file=log, width=100))
    stages = [line for line in log.getvalue().splitlines() if line.endswith(" ...")]
    assert [stage.split()[0] for stage in stages] == ["Reading", "Predicting", "Drawing", "Writing"]
    folder = tmp_path / "page-figures"
    names = {
        "differences-evaluation",
        "differences-train",
        "loss",
        "alignment-evaluation",
        "alignment-train",
        "groups-evaluation",
        "groups-train",
        "fairness-evaluation",
        "fairness-train",
        "prediction",
    }
    assert {file.name for file in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    for name in names:
        assert "<script" not in (folder / f"{name}.svg").read_text("utf-8")
        start = (folder / f"{name}.png").read_bytes()[:24]
        assert start.startswith(b"\x89PNG")
        assert int.from_bytes(start[16:20]) > 1000  # pixels wide


@pytest.mark.usefixtures("undrawn")
def test_without_answers_no_text_of_the_survey_is_in_the_page_or_its_figures(
    comparison: Path, tmp_path: Path, write_page: Write
) -> None:
    earlier = tmp_path / "report-figures" / "prediction.svg"
    earlier.parent.mkdir()
    earlier.touch()
    page = write_page(comparison, answers=False)
    assert not earlier.exists()
    assert json.loads(PageReader(page).data)["predictions"] is None
    assert "True and predicted answers" not in page
    assert "onerror" not in PageReader(page).data
    assert "closed?" not in page


def test_a_run_without_evaluation_groups_or_intervals_has_a_page(
    tmp_path: Path, write_page: Write
) -> None:
    only_train = [make_entry(0, train_score=0.5), make_entry(1, None, 0.4, train_score=0.7)]
    text = PageReader(write_page(write_run(tmp_path / "a", only_train, roster=ROSTER[:3]))).text
    assert "The survey has no evaluation groups" in text
    assert "One seed: there are no intervals" in text
    assert "None of these runs has kept a best model yet." in text
    assert "95 % bootstrap interval" not in text


def test_a_run_that_failed_at_once_has_a_page(tmp_path: Path, write_page: Write) -> None:
    run = write_run(
        tmp_path / "a", rounds=[], status="failed", error="no <b>quorum</b>", survey=None, roster=[]
    )
    text = PageReader(write_page(run)).text
    assert "failed before its first round: no <b>quorum</b>" in text
    assert "Federated GPO (not finished)" in text
    assert text.count("No run has an evaluation yet") == 2
    assert "No run has an evaluation of two groups yet." in text
    assert "No method that was trained has finished." in text
    assert "No finished federated run has another method beside it" in text


def test_a_comparison_with_missing_cells_has_a_page(
    comparison: Path, tmp_path: Path, write_page: Write
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(comparison, copy)
    shutil.rmtree(copy / "cells" / "federated")
    shutil.rmtree(copy / "cells" / "consensus" / "seed-1")
    page = write_page(copy)
    assert "these runs are left out: Federated GPO, seed 0 (not begun)" in page
    # There is no federated model: the centralized one predicts.
    assert "predicted by Centralized GPO, equal steps" in page


@pytest.mark.usefixtures("undrawn")
def test_a_method_with_fewer_seeds_is_the_best_of_nothing(
    comparison: Path, tmp_path: Path, write_page: Write
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(comparison, copy)
    uniform = copy / "cells" / "uniform"
    shutil.rmtree(uniform / "seed-1")
    rounds = uniform / "seed-0" / "rounds.jsonl"
    last = json.loads(rounds.read_text())
    last["evaluation"]["roles"]["evaluation"]["mean"] = 0.99
    rounds.write_text(json.dumps(last) + "\n")
    best = [cell for cell in write_page(copy).split("<td") if "0.9900" in cell]
    assert len(best) == 1
    assert "best" not in best[0]


@pytest.mark.usefixtures("undrawn")
def test_every_machine_of_a_comparison_is_named(
    comparison: Path, tmp_path: Path, write_page: Write
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(comparison, copy)
    file = copy / "cells" / "uniform" / "seed-1" / "run.json"
    record = json.loads(file.read_text())
    record["versions"]["torch"] = "1.2.3"
    file.write_text(json.dumps(record))
    text = PageReader(write_page(copy)).text
    assert "torch 2" in text
    assert "torch 1.2.3" in text


@pytest.mark.usefixtures("undrawn")
def test_differences_of_one_seed_have_no_interval(tmp_path: Path, write_page: Write) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", method="uniform")]
    text = PageReader(write_page(*runs)).text
    assert "better than federated training. One seed, so no interval." in text


@pytest.mark.parametrize("wrong", ["survey", "path"])
def test_what_is_refused_leaves_nothing_behind(
    comparison: Path, tiny_survey: PreparedSurvey, tmp_path: Path, wrong: str
) -> None:
    out = tmp_path / "new" / "report.html"
    survey = tiny_survey.path if wrong == "survey" else tmp_path / "missing"
    with pytest.raises(UserError):
        report_command([comparison], out, survey)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file/report.html", "folder", "file"])
def test_an_out_that_cannot_be_written_is_refused(
    tmp_path: Path, out: str, comparison: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write|is a directory|no report"):
        report_command([comparison], tmp_path / out)


def test_a_missing_package_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [name for name in sys.modules if name.startswith("pluralllm_app.report")]:
        monkeypatch.delitem(sys.modules, module)
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "vl_convert", hidden)
    with pytest.raises(UserError, match=r"vl_convert.*: pip install 'pluralllm-app\[report\]'"):
        report_command([tmp_path])
