"""Predictors of a small survey, trained once."""

from pathlib import Path

import pytest

from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.predictor import Predictor
from tests.support.used import FACTORS, make_survey, train


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("used")


@pytest.fixture(scope="session")
def survey(place: Path) -> PreparedSurvey:
    return make_survey(place / "survey")


@pytest.fixture(scope="session")
def factors_run(survey: PreparedSurvey, place: Path) -> Path:
    return train(survey, place / "factors", FACTORS | {"rounds": 8})


@pytest.fixture(scope="session")
def gpo_run(survey: PreparedSurvey, place: Path) -> Path:
    return train(survey, place / "gpo", {})


@pytest.fixture(scope="session")
def refined_run(survey: PreparedSurvey, place: Path) -> Path:
    wishes = {"prior": "factors", "train-groups-per-round": 0, "rounds": 6}
    return train(survey, place / "refined", wishes)


@pytest.fixture(scope="session")
def predictor(factors_run: Path) -> Predictor:
    """Of latent factors."""
    return Predictor.from_pretrained(factors_run)
