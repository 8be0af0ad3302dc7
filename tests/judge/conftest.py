"""A survey whose groups differ by one trait, and what is asked of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.judge import server
from pluralllm_app.judge.asking import ask
from pluralllm_app.judge.beside import Setting, prepare_setting
from pluralllm_app.judge.endpoint import Endpoint
from pluralllm_app.judge.kept import open_answers
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


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE", 0.001)


@pytest.fixture
def asks(setting: Setting, cache: Path) -> Callable[..., Any]:
    """Asks an endpoint the questions of the survey, as itself, and says how."""

    def do(address: str, samples: int | None = None, key: str | None = None) -> Any:
        prompts = list(setting.plan.prompts([None]))
        with open_answers(cache) as kept:
            return ask(Endpoint(address, key, samples), prompts, kept, lambda done, total: None)

    return do
