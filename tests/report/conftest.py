"""A survey whose texts are hostile, a comparison on it, and the report of that."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.report import build
from pluralllm_app.settings import Scalar, read_defaults
from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey
from tests.conftest import ROOT, TINY

GROUPS = {
    "</script><script>alert('group')</script>": "evaluation",
    'Élan "中" & 🙂 <b>bold</b>': "evaluation",
    "Alder": "train",
    "קבוצה ימנית": "train",
    "Birch ' \\ \u2028": "train",
}
TEXTS = [
    "Is </script><script>alert(1)</script> <!-- <script> closed?",
    "<img src=x onerror=alert(2)> and <b>bold</b>, \"quoted\", 'single' & &amp;",
    "مرحبا بالعالم، هل توافق؟ 🙂",
    "Long " + "word " * 200,
    "{{ 7 * 7 }} ${alert(3)} </style>",
]
QUESTIONS = 24
COMPARED = ("federated", "centralized-equal-steps", "uniform", "consensus")


def text_of(question: int) -> str:
    return f"{TEXTS[question % len(TEXTS)]} ({question})"


@pytest.fixture(scope="session")
def hostile_survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    rng = np.random.default_rng(7)
    options = [2 + i % 3 for i in range(QUESTIONS)]
    groups = sorted(GROUPS)
    return write_survey(
        tmp_path_factory.mktemp("hostile") / "survey",
        name="Survey </title><script>alert('name')</script>",
        metric="jensen-shannon",
        embedder="none",
        source="random numbers",
        licence="none",
        questions=Questions(
            ids=[f"q&{i} <" for i in range(QUESTIONS)],
            texts=[text_of(i) for i in range(QUESTIONS)],
            options=[[f"</td><i>{i}.{j} 🙂" for j in range(n)] for i, n in enumerate(options)],
            values=[None] * QUESTIONS,
        ),
        embeddings=rng.normal(size=(sum(options), 6)).astype(np.float16),
        answers=Answers(
            groups=groups,
            group=np.repeat(np.arange(len(groups)), QUESTIONS),
            question=np.tile(np.arange(QUESTIONS), len(groups)),
            shares=np.concatenate([rng.dirichlet(np.ones(n)) for _ in groups for n in options]),
        ),
        roles=GROUPS,
    )


@pytest.fixture(scope="session")
def hostile_config(hostile_survey: PreparedSurvey) -> dict[str, Scalar]:
    own: dict[str, Scalar] = {"survey": str(hostile_survey.path), "reserved-fraction": 0.2}
    return read_defaults(ROOT / "pyproject.toml") | TINY | own


@pytest.fixture(scope="session")
def comparison(
    hostile_survey: PreparedSurvey,
    hostile_config: dict[str, Scalar],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A comparison of 4 methods under 2 seeds, all finished; not to be written to."""
    out = tmp_path_factory.mktemp("compared") / "compare-hostile"
    for cell in open_comparison(out, hostile_config, hostile_survey, 2, COMPARED):
        run_cell(cell)
    return out


@pytest.fixture(scope="session")
def reported(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the comparison, without its figures, which take most of the time."""
    out = tmp_path_factory.mktemp("reported") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_files", lambda *_: {})
        build.report([comparison], out, None, True, Console(quiet=True))
    return out


@pytest.fixture
def write_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a report without its figures, which take most of the time; returns the page."""
    monkeypatch.setattr(build, "_files", lambda *_: {})

    def write(*paths: Path, survey: Path | None = None, answers: bool = True) -> str:
        out = tmp_path / "report.html"
        build.report(paths, out, survey, answers, Console(quiet=True))
        return out.read_text("utf-8")

    return write
