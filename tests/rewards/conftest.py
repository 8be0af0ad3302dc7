"""A predictor of a small survey, trained once, and two of its groups."""

from pathlib import Path

import pytest

from pluralllm_app import Predictor
from pluralllm_app.use.group import Group
from tests.support.used import FACTORS, OFTEN, answers_of, make_survey, train


@pytest.fixture(scope="session")
def rewarding_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a predictor of latent factors."""
    home = tmp_path_factory.mktemp("rewarding")
    return train(make_survey(home / "survey"), home / "run", FACTORS | {"rounds": 8})


@pytest.fixture(scope="session")
def predictor(rewarding_run: Path) -> Predictor:
    return Predictor.from_pretrained(rewarding_run)


@pytest.fixture
def north(predictor: Predictor) -> Group:
    """A group that likes no change."""
    return predictor.group(answers_of("North", OFTEN), name="North")


@pytest.fixture
def south(predictor: Predictor) -> Group:
    """A group that likes change."""
    return predictor.group(answers_of("South", OFTEN), name="South")
