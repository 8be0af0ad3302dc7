"""A survey whose texts try to break out of a page."""

from pathlib import Path

import numpy as np

from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey

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


def text_of(question: int) -> str:
    return f"{TEXTS[question % len(TEXTS)]} ({question})"


def write_hostile_survey(path: Path) -> PreparedSurvey:
    """Write it to `path`, which must be new: five groups, 24 questions."""
    rng = np.random.default_rng(7)
    options = [2 + i % 3 for i in range(QUESTIONS)]
    groups = sorted(GROUPS)
    return write_survey(
        path,
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
