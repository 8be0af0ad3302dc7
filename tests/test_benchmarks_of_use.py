"""The benchmarks of predictors in use measure what they say."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.benchmarks import benchmarks, run
from tests.support.used import FACTORS, make_survey, train

__all__ = ["benchmarks"]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small survey, and a run on it that learned factors."""
    place = tmp_path_factory.mktemp("used")
    survey = make_survey(place / "survey")
    return survey.path, train(survey, place / "run", FACTORS | {"rounds": 3})


@pytest.mark.slow
def test_chosen_questions_are_compared(
    used: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, run_directory = used
    picture = tmp_path / "asking.png"
    options = ["--survey", str(survey), "--draws", "2", "--plot", str(picture)]
    results = run("asking", tmp_path, monkeypatch, str(run_directory), *options)
    assert results["groups"] == 2
    means = {
        key: float(value.split()[0]) for key, value in results.items() if key.endswith("questions")
    }
    assert results["chosen, 5 questions, worst group"] <= means["chosen, 5 questions"] + 1e-4
    for way in ("random", "chosen", "fixed list"):
        # 6 questions may be asked: 10 and 20 are all of them, in whatever way.
        assert means[f"{way}, 20 questions"] == pytest.approx(
            means["random, 10 questions"], abs=1e-3
        )
    assert means["chosen - random, 20 questions"] == pytest.approx(0, abs=1e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_fixed_list_starts_with_what_explains_most(used: tuple[Path, Path]) -> None:
    survey = PreparedSurvey.open(used[0])
    fixed_list = importlib.import_module("asking").fixed_list
    groups = [survey.preferences(group.name) for group in survey.groups]
    found = list(fixed_list(groups, survey))
    assert len(set(found)) == len(found) > 0
    # By hand: how much of the sum of squares a regression on each column alone takes away.
    y = np.sqrt(np.stack([group.shares for group in groups]).astype(np.float64))
    y -= y.mean(0)
    every = survey.all_questions()
    explained = [
        sum(
            float(((column @ y) ** 2).sum() / (column @ column))
            for column in y[:, start : start + count].T
            if column @ column > 1e-9
        )
        for start, count in zip(every.starts, every.options, strict=True)
    ]
    assert explained[found[0]] == pytest.approx(max(explained))


def test_predictions_are_timed(
    used: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run("predicting", tmp_path, monkeypatch, str(used[1]), "--repeats", "1")
    assert results["questions"] == 12
    assert results["options"] == 30
    assert all(value > 0 for key, value in results.items() if key.startswith("ms "))


def test_completions_are_scored(
    used: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run("rewards", tmp_path, monkeypatch, str(used[1]), "--repeats", "1")
    assert results["completions of a batch"] == 1024
    assert results["completions a second, one group"] > 0
    assert results["completions a second, ten groups"] > 0
