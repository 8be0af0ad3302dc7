"""A tiny survey and the run config that fits it."""

import gc
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ("Alder", "Birch", "Cedar")
EVALUATION = ("Dogwood", "Élan 中/..")
# Texts and shares that a search of the bytes of messages and logs can find.
QUESTION_TEXT = "Should the sundial face north"
OPTION_TEXT = "Certainly so"

# No test may fail because the machine is slow or busy.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.load_profile("any machine")


def pytest_collection() -> None:
    """Look for no garbage while all is imported and listed: there is hardly any."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for it again, and less often than by default."""
    gc.enable()
    gc.set_threshold(20_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that start engines first: they take longest, and workers should end together."""
    engines = {item.path for item in items if item.get_closest_marker("engine")}
    items.sort(key=lambda item: item.path not in engines)


@pytest.fixture(scope="module", autouse=True)
def _no_old_garbage() -> None:
    """Spare garbage collection what is there by now: one of Flower's strategies collects often."""
    gc.freeze()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged, in place of pytest's `caplog`, whose plugin takes time in every test."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    yield text
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Wait for no disk: what is written need not outlive the machine, and no test could tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


def make_survey(
    path: Path,
    *,
    questions: int = 30,
    dim: int = 6,
    train: Sequence[str] = TRAIN,
    evaluation: Sequence[str] = EVALUATION,
    respondents: float | None = None,
) -> PreparedSurvey:
    """Write a survey, by default of 5 groups; 2 or 3 options a question.

    Cedar answers only the first 20.
    """
    rng = np.random.default_rng(5)
    options = [2 + i % 2 for i in range(questions)]
    groups = sorted([*train, *evaluation])
    answered = [20 if group == "Cedar" else questions for group in groups]
    shares = [rng.dirichlet(np.ones(n)) for count in answered for n in options[:count]]
    return write_survey(
        path,
        name="tiny",
        metric="jensen-shannon",
        embedder="none",
        source="random numbers",
        licence="none",
        questions=Questions(
            ids=[f"q{i}" for i in range(questions)],
            texts=[f"{QUESTION_TEXT} {i}?" for i in range(questions)],
            options=[[f"{OPTION_TEXT} {i} {j}" for j in range(n)] for i, n in enumerate(options)],
            values=[None] * questions,
        ),
        embeddings=rng.normal(size=(sum(options), dim)).astype(np.float16),
        answers=Answers(
            groups=groups,
            group=np.repeat(np.arange(len(groups)), answered),
            question=np.concatenate([np.arange(count) for count in answered]),
            shares=np.concatenate(shares),
            respondents=None if respondents is None else np.full(sum(answered), respondents),
            influence=None if respondents is None else np.full(sum(answered), 1 / respondents),
        ),
        roles=dict.fromkeys(train, "train") | dict.fromkeys(evaluation, "evaluation"),
    )


@pytest.fixture(scope="session")
def tiny_survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    return make_survey(tmp_path_factory.mktemp("surveys") / "tiny")


TINY: dict[str, Scalar] = {
    "rounds": 2,
    "evaluate-every": 1,
    "checkpoint-every": 1,
    "local-steps": 2,
    "context-min": 2,
    "context-max": 4,
    "target-min": 2,
    "target-max": 4,
    "evaluation-context": 3,
    "evaluation-draws": 1,
    "d-model": 8,
    "emb-depth": 1,
    "dim-feedforward": 8,
    "nhead": 2,
    "num-layers": 1,
    # However slow the machine, only a node that stays silent or away is waited for so long: in one
    # process, a reply is there as soon as it is asked for.
    "round-timeout": 0.3,
    "start-timeout": 0.3,
    "grace-period": 0.3,
}


DEFAULTS = read_defaults(ROOT / "pyproject.toml")


def tiny_config(survey: PreparedSurvey, out: Path) -> dict[str, Scalar]:
    """The whole run config of a tiny run."""
    return DEFAULTS | TINY | {"survey": str(survey.path), "out": str(out)}


@pytest.fixture
def config(tiny_survey: PreparedSurvey, tmp_path: Path) -> dict[str, Scalar]:
    return tiny_config(tiny_survey, tmp_path / "run")


@pytest.fixture
def make_settings(config: dict[str, Scalar]) -> Callable[..., Settings]:
    """Settings of a tiny run; ``make_settings({"rounds": 3})`` overrides."""

    def make(overrides: dict[str, Any] | None = None) -> Settings:
        return Settings.from_config(config | (overrides or {}))

    return make
