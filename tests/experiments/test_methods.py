"""The registry of methods: what a new entry gets, and that the entries say the truth."""

from pathlib import Path

import pytest

from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.methods import METHODS, Look, MethodSpec
from pluralllm_app.experiments.results import Comparison
from pluralllm_app.experiments.runs import run_baseline
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.report.sources import read_sources
from pluralllm_app.report.style import looks
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey


def test_every_baseline_can_be_compared_and_is_what_it_says() -> None:
    said = {name: (METHODS[name].title, METHODS[name].pools_answers) for name in BASELINES}
    assert said == {name: (kind.title, kind.pools_answers) for name, kind in BASELINES.items()}


def test_a_new_method_is_one_entry(
    config: dict[str, Scalar],
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(survey: PreparedSurvey, settings: Settings, config: dict[str, Scalar]) -> None:
        run_baseline(survey, settings, config, "uniform")

    look = Look("#000000", "#ffffff", (1, 1), "circle")
    spec = MethodSpec(name="mine", title="Mine", pools_answers=False, run=run, look=look)
    monkeypatch.setitem(METHODS, spec.name, spec)
    (cell,) = open_comparison(tmp_path / "new", config, tiny_survey, 1, ["mine"])
    run_cell(cell)
    (method,) = Comparison.read(tmp_path / "new").methods
    assert (method.name, method.title, len(method.runs)) == ("mine", "Mine", 1)
    assert looks(read_sources([tmp_path / "new"]).methods) == {"Mine": look}
