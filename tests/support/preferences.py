"""Preference sets made of given or random answers."""

import numpy as np

from pluralllm_app.core.segments import Halves, Ints
from pluralllm_app.preferences import PreferenceSet

OPTIONS = np.array([2, 3, 2])  # of the questions of a tiny survey


def preference_set(
    group: str,
    answers: dict[int, list[float]],
    options: Ints = OPTIONS,
    embeddings: Halves | None = None,
) -> PreferenceSet:
    """A group's answers {question: shares} to a survey with `options`."""
    questions = np.array(sorted(answers), np.int64)
    if embeddings is None:
        embeddings = np.zeros((int(options.sum()), 1), np.float16)
    return PreferenceSet(
        group=group,
        embeddings=embeddings,
        questions=questions,
        first_rows=(np.cumsum(options) - options)[questions],
        options=options[questions],
        shares=np.array([share for q in questions for share in answers[q]], np.float32),
    )


def random_groups(
    rng: np.random.Generator, groups: int, options: Ints, answered: float, dim: int = 3
) -> list[PreferenceSet]:
    """Groups that answer each question at random with probability `answered`, at least one."""
    embeddings = rng.normal(size=(options.sum(), dim)).astype(np.float16)
    made = []
    for group in range(groups):
        chosen = np.flatnonzero(rng.random(len(options)) < answered)
        questions = chosen.tolist() or [0]
        answers = {q: rng.dirichlet(np.full(options[q], 0.3)).tolist() for q in questions}
        made.append(preference_set(f"group {group}", answers, options, embeddings))
    return made
