"""A service of a small survey, whose predictor is trained once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.running import prepare
from pluralllm_app.use.predictor import Predictor
from tests.support.used import FACTORS, QUESTIONS, answers_of, make_survey, train

TOKEN = "a-token-of-this-test"
KNOWN = {"answers": answers_of("North", QUESTIONS[:6])}
NEW = {"text": "Should the bridge change soon?", "options": ["Yes", "No"]}


@pytest.fixture(scope="session")
def served_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a predictor of latent factors."""
    home = tmp_path_factory.mktemp("served")
    survey = make_survey(home / "survey")
    return train(survey, home / "run", FACTORS | {"rounds": 8})


@pytest.fixture(scope="session")
def predictor(served_run: Path) -> Predictor:
    return Predictor.from_pretrained(served_run)


@pytest.fixture
def client(predictor: Predictor) -> Iterator[TestClient]:
    """A client of a service without a token, on a loopback address."""
    app = make_app(prepare(predictor, None), None, {"localhost"})
    with TestClient(app, "http://localhost:8000") as client:
        yield client
