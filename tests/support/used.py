"""A small survey with readable questions, and predictors trained on it, to be used by texts.

Groups differ by one trait t in [0, 1]: how much they like change. What they answer follows from it.
"""

from pathlib import Path

import numpy as np
from rich.console import Console

from pluralllm_app.settings import Scalar
from pluralllm_app.survey.content import Answers, Description, Questions
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey
from pluralllm_app.use.questions import Question
from tests.conftest import tiny_config
from tests.support.local_runs import run

SUBJECTS = ("the harbour", "the museum", "the market", "the ferry", "the school", "the theatre")
TRAITS = {
    **{f"Group {number}": number / 7 for number in range(8)},
    "North": 0.2,
    "South": 0.8,
}
NEW = ("North", "South")  # never trained on
YES_NO = [
    Question(f"Should {subject} change soon?", ["Yes", "No"], f"c{number}")
    for number, subject in enumerate(SUBJECTS)
]
OFTEN = [
    Question(f"How often do you miss {subject} of old?", ["Often", "Rarely", "Never"], f"m{number}")
    for number, subject in enumerate(SUBJECTS)
]
QUESTIONS = [*YES_NO, *OFTEN]


def shares_of(trait: float, question: Question) -> list[float]:
    """What a group with this trait answers."""
    if question in YES_NO:
        return [0.1 + 0.8 * trait, 0.9 - 0.8 * trait]
    return [0.7 - 0.6 * trait, 0.2, 0.1 + 0.6 * trait]


def answers_of(name: str, questions: list[Question]) -> dict[str, dict[str, float]]:
    """A group's answers, as a user gives them."""
    return {
        question.text: dict(zip(question.options, shares_of(TRAITS[name], question), strict=True))
        for question in questions
    }


def make_survey(path: Path, embedder: str = "hashing") -> PreparedSurvey:
    """Write the survey; `embedder` is what it says of how its questions were embedded."""
    hashing = HashingEmbedder()
    questions = Questions(
        ids=[str(question.id) for question in QUESTIONS],
        texts=[question.text for question in QUESTIONS],
        options=[question.options for question in QUESTIONS],
        values=[None] * len(QUESTIONS),
    )
    count = len(QUESTIONS)
    answers = Answers(
        groups=list(TRAITS),
        group=np.repeat(np.arange(len(TRAITS)), count),
        question=np.tile(np.arange(count), len(TRAITS)),
        shares=np.concatenate(
            [shares_of(trait, question) for trait in TRAITS.values() for question in QUESTIONS]
        ),
    )
    names = list(TRAITS)
    vectors = hashing.describe(names)
    return write_survey(
        path,
        name="Changes",
        metric="jensen-shannon",
        embedder=embedder,
        source="made up for a test",
        licence="none",
        questions=questions,
        embeddings=hashing.embed(questions, Console(quiet=True), path),
        answers=answers,
        roles={name: "evaluation" if name in NEW else "train" for name in names},
        descriptions={
            name: Description(name, vector) for name, vector in zip(names, vectors, strict=True)
        },
    )


FACTORS: dict[str, Scalar] = {"predictor": "factors", "train-groups-per-round": 0}


def train(survey: PreparedSurvey, out: Path, wishes: dict[str, Scalar]) -> Path:
    """Train a predictor on it in this process, a tiny run; returns the run directory `out`."""
    run(tiny_config(survey, out) | wishes, nodes=len(TRAITS))
    return out
