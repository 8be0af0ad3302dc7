"""A survey small enough to check by hand: three questions, two groups."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.survey.content import Answers, Questions, SurveyContent
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import PLAIN

QUESTIONS = Questions(
    ids=["tea", "bus", "sea"],
    texts=["Do you drink tea?", "How is the bus?", "Do you like the sea?"],
    options=[["Yes", "No"], ["Good", "Fair", "Bad"], ["Yes", "No"]],
    values=[None, [3.0, 2.0, 1.0], [1.0, 0.0]],
)
# North answers sea before tea, South all three.
ANSWERS = Answers(
    groups=["South", "North"],
    group=np.array([1, 0, 1, 0, 0]),
    question=np.array([2, 0, 0, 1, 2]),
    shares=np.array([0.9, 0.1, 0.5, 0.5, 0.25, 0.75, 0.2, 0.3, 0.5, 1.0, 0.0]),
    respondents=np.array([10, 20, 10, 20, 20]),
)
EMBEDDINGS = np.arange(14, dtype=np.float16).reshape(7, 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no library warn of a user's file: what it doubts is an error or a sentence of ours."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for doubt in ("UserWarning", "RuntimeWarning", "FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"error::{doubt}"))


@pytest.fixture
def content() -> dict[str, Any]:
    """The arguments of `write_survey` but its path."""
    return {
        "name": "Tiny",
        "metric": "jensen-shannon",
        "embedder": "hashing",
        "source": "made up",
        "licence": "none",
        "questions": QUESTIONS,
        "embeddings": EMBEDDINGS,
        "answers": ANSWERS,
        "roles": {"North": "train", "South": "evaluation"},
    }


@pytest.fixture
def write(tmp_path: Path, content: dict[str, Any]) -> Callable[..., PreparedSurvey]:
    """Write the tiny survey, with changes, to `tmp_path / "tiny"`."""
    return lambda **changes: write_survey(tmp_path / "tiny", **{**content, **changes})


@pytest.fixture
def tiny(write: Callable[..., PreparedSurvey]) -> PreparedSurvey:
    """The tiny survey, written and opened."""
    return write()


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> SurveyContent:
    """What the table PLAIN should be read as."""
    file = tmp_path_factory.mktemp("tables") / "mine.csv"
    PLAIN.to_csv(file, index=False)
    survey = read_table(file)
    assert survey.note == "counts that are no whole numbers, so sums of weights and not of people"
    assert survey.answers.respondents is None
    return survey
