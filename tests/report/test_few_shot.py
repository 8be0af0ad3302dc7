"""The section on numbers of context questions, of runs written by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pluralllm_app.records.reader import FEW_SHOT
from pluralllm_app.records.schema import FewShot, FewShotPoint, encode_file
from pluralllm_app.report.sections import draw
from pluralllm_app.report.series import few_shot_rows
from pluralllm_app.report.sources import read_sources
from pluralllm_app.report.style import Style, looks
from tests.support.runs import write_run


def scored_run(path: Path, seed: int, scores: dict[int, float | None]) -> Path:
    write_run(path, seed=seed)
    points = [FewShotPoint(context=context, alignment=score) for context, score in scores.items()]
    few_shot = FewShot(points=points, most=20, most_group="Dogwood")
    (path / FEW_SHOT).write_bytes(encode_file(few_shot))
    return path


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    paths = [
        scored_run(tmp_path / "a", 0, {0: None, 1: 0.7, 20: 0.8}),
        scored_run(tmp_path / "b", 1, {0: None, 1: 0.8, 20: 0.9}),
    ]
    sources = read_sources(paths)
    rows = few_shot_rows(sources.methods)
    assert [(row["context"], row["alignment"]) for row in rows] == [
        (1, pytest.approx(0.75)),
        (20, pytest.approx(0.85)),
    ]
    assert (rows[0]["low"], rows[0]["high"]) == (0.7, 0.8)
    style = Style(looks(sources.methods), page=False)
    (section,) = [found for found in draw(sources, style) if found.id == "few-shot"]
    assert "Left out: 50, 100 (Dogwood" in section.caption
    (chart,) = section.charts
    (x,) = {json.dumps(layer["encoding"]["x"]) for layer in chart.spec["layer"]}
    assert "questions whose answers are given" in x
    assert '"values": [1, 20]' in x


@pytest.mark.usefixtures("undrawn")
def test_without_scores_the_page_says_so(tmp_path: Path, write_page: Callable[..., str]) -> None:
    page = write_page(write_run(tmp_path / "run"))
    assert "Nothing was scored at other numbers of context questions" in page
    assert "True shares within intervals" not in page
