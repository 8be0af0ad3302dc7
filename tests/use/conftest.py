"""Predictors of a small survey, trained once."""

from pathlib import Path

import pytest

from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.predictor import Predictor
from tests.conftest import tiny_config
from tests.support.used import make_survey, train


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    return make_survey(tmp_path_factory.mktemp("used") / "survey")


@pytest.fixture(scope="session")
def factors_run(survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("used") / "factors"
    wishes = {"predictor": "factors", "train-groups-per-round": 0, "rounds": 8}
    return train(survey, out, tiny_config(survey, out) | wishes)


@pytest.fixture(scope="session")
def gpo_run(survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("used") / "gpo"
    return train(survey, out, tiny_config(survey, out))


@pytest.fixture(scope="session")
def refined_run(survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("used") / "refined"
    wishes = {"prior": "factors", "train-groups-per-round": 0, "rounds": 6}
    return train(survey, out, tiny_config(survey, out) | wishes)


@pytest.fixture(scope="session")
def predictor(factors_run: Path) -> Predictor:
    """Of latent factors."""
    return Predictor.from_pretrained(factors_run)
