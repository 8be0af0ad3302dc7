"""A survey whose texts are hostile, a comparison on it, and the report of that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.report import build, charts
from pluralllm_app.settings import Scalar
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TINY
from tests.support.hostile import write_hostile_survey

COMPARED = ("federated", "centralized-equal-steps", "uniform", "consensus")


@pytest.fixture(scope="session")
def hostile_survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    return write_hostile_survey(tmp_path_factory.mktemp("hostile") / "survey")


@pytest.fixture(scope="session")
def hostile_config(hostile_survey: PreparedSurvey) -> dict[str, Scalar]:
    own: dict[str, Scalar] = {"survey": str(hostile_survey.path), "reserved-fraction": 0.2}
    return read_defaults(ROOT / "pyproject.toml") | TINY | own


@pytest.fixture(scope="session")
def comparison(
    hostile_survey: PreparedSurvey,
    hostile_config: dict[str, Scalar],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A comparison of 4 methods under 2 seeds, all finished; not to be written to."""
    out = tmp_path_factory.mktemp("compared") / "compare-hostile"
    for cell in open_comparison(out, hostile_config, hostile_survey, 2, COMPARED):
        run_cell(cell)
    return out


@pytest.fixture(scope="session")
def reported(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the comparison, without its figures, which take most of the time."""
    out = tmp_path_factory.mktemp("reported") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_files", lambda *_: {})
        build.report([comparison], out, None, True, Console(quiet=True))
    return out


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts of a page empty, for tests of its text: they take most of the time left."""
    for name in vars(charts):
        if name.endswith("_chart"):
            monkeypatch.setattr(charts, name, lambda *_, **__: {})


@pytest.fixture
def write_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a report without its figures, which take most of the time."""
    monkeypatch.setattr(build, "_files", lambda *_: {})

    def write(*paths: Path, survey: Path | None = None, answers: bool = True) -> str:
        out = tmp_path / "report.html"
        build.report(paths, out, survey, answers, Console(quiet=True))
        return out.read_text("utf-8")

    return write
