"""The registry of methods: what a new entry gets, and that the entries say the truth."""

from pathlib import Path

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.methods import METHODS, Look, MethodSpec, available_methods
from pluralllm_app.experiments.results import Comparison
from pluralllm_app.experiments.runs import run_baseline
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.report.sources import read_sources
from pluralllm_app.report.style import looks
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey


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


def test_the_ceiling_is_below_one_and_rises_with_the_number_of_people(
    config: dict[str, Scalar], tmp_path: Path
) -> None:
    means = []
    for people in (30, 3000):
        survey = make_survey(tmp_path / f"{people}", respondents=people)
        of_survey = config | {"survey": str(survey.path)}
        (cell,) = open_comparison(tmp_path / f"of {people}", of_survey, survey, 1, ["ceiling"])
        run_cell(cell)
        (method,) = Comparison.read(tmp_path / f"of {people}").methods
        assert method.title == "Ceiling: sampling noise, no method"
        assert len(method.group_scores("train")) == 3
        assert len(method.group_scores("evaluation")) == 2
        interval = method.score("evaluation", "mean")
        assert interval is not None
        means.append(interval.mean)
    assert 0.8 < means[0] < 0.95 < means[1] < 1


def test_the_ceiling_needs_to_know_how_many_were_asked(
    tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    assert "ceiling" not in available_methods([], tiny_survey)
    assert available_methods(["uniform"], tiny_survey) == ["uniform"]
    with pytest.raises(UserError, match=r"'ceiling' needs to know .* tiny does not say so"):
        available_methods(["uniform", "ceiling"], tiny_survey)
    asked = make_survey(tmp_path / "asked", respondents=100)
    assert available_methods([], asked) == list(METHODS)
