"""Surveys of few questions: some that letters cannot ask, one of templates, one with values."""

from pathlib import Path

import numpy as np

from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey


def ordinal_survey(path: Path) -> PreparedSurvey:
    """One question whose options are worth 1, 2 and 5, answered by A, with Wasserstein's metric."""
    return write_survey(
        path,
        name="ordinal",
        metric="wasserstein",
        embedder="none",
        source="made up",
        licence="none",
        questions=Questions(["1"], ["a?"], [["x", "y", "z"]], [[1, 2, 5]]),
        embeddings=np.eye(3, 8, dtype=np.float16),
        answers=Answers(
            groups=["A"],
            group=np.array([0]),
            question=np.array([0]),
            shares=np.array([1.0, 0.0, 0.0]),
        ),
        roles={"A": "evaluation"},
    )


def survey_of_templates(path: Path) -> PreparedSurvey:
    """Two questions whose texts mean something to Jinja, YAML and lm-evaluation-harness."""
    options = [["{{ letters }}", "{% if x %}", "a: b # c"], ["{#", "!function metric.x"]]
    return write_survey(
        path,
        name="odd {{name}}: '#",
        metric="jensen-shannon",
        embedder="none",
        source="{{x}}",
        licence="l: {y}\nn",
        questions=Questions(["1", "2"], ["{{prompt}}", "12"], options, [None] * 2),
        embeddings=np.eye(5, 8, dtype=np.float16),
        answers=Answers(
            groups=["alignment", "{g}: '"],
            group=np.array([0, 0, 1]),
            question=np.array([0, 1, 0]),
            shares=np.array([1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0]),
        ),
        roles={"alignment": "evaluation", "{g}: '": "evaluation"},
    )


def odd_survey(path: Path) -> PreparedSurvey:
    """Questions of 27 and of 26 options, and one whose options differ by capitals.

    A answers the first alone, B all of them.
    """
    options = [[f"o{n}" for n in range(27)], [f"o{n}" for n in range(26)], ["us", "US"]]
    counts = [27, 27, 26, 2]
    return write_survey(
        path,
        name="odd",
        metric="jensen-shannon",
        embedder="none",
        source="made up",
        licence="none",
        questions=Questions(["27", "26", "us"], ["a?", "b?", "c?"], options, [None] * 3),
        embeddings=np.eye(55, 8, dtype=np.float16),
        answers=Answers(
            groups=["A", "B"],
            group=np.array([0, 1, 1, 1]),
            question=np.array([0, 0, 1, 2]),
            shares=np.concatenate([np.full(count, 1 / count) for count in counts]),
        ),
        roles={"A": "evaluation", "B": "train"},
    )
