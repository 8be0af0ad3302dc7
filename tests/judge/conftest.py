"""A survey whose groups differ by one trait, and what is asked of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pluralllm_app.judge.beside import Setting, prepare_setting
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.used import FACTORS, make_survey, train

MakeSetting = Callable[..., Setting]


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    return make_survey(tmp_path_factory.mktemp("judged") / "survey")


@pytest.fixture(scope="session")
def setting(survey: PreparedSurvey) -> Setting:
    """All 12 questions of the two groups never trained on; no predictor."""
    return prepare_setting(survey, [], None, most=100, seed=0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "answers.jsonl"


@pytest.fixture(scope="session")
def trained(survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of latent factors on it."""
    out = tmp_path_factory.mktemp("judged") / "run"
    return train(survey, out, FACTORS | {"rounds": 3})
