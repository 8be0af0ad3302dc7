"""Runs with noise for respondents: settings, and a survey that says how much one can change."""

import pytest

from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey
from tests.support.local_runs import Config

NOISE: Config = {"noise": "respondents", "epsilon": 1.0}
FACTORS: Config = {"predictor": "factors", "train-groups-per-round": 0}
REFINED: Config = {"prior": "factors", "train-groups-per-round": 0, "rounds": 4}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """One of which it is known that 400 people have answered each question."""
    return make_survey(tmp_path_factory.mktemp("survey") / "survey", respondents=400)
