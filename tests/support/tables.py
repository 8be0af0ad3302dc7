"""A small table of a survey, as a frame and as what it should be read as."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pluralllm_app.survey.content import SurveyContent

COLUMNS = ["question_id", "question", "option", "group", "count"]
PLAIN = pd.DataFrame(
    [
        ("f1", "Mehr Geld für Grünanlagen?", "Ja, unbedingt", "Köln", "1149.5"),
        ("f1", "Mehr Geld für Grünanlagen?", "weiß nicht", "Köln", "16.25"),
        ("f1", "Mehr Geld für Grünanlagen?", "Ja, unbedingt", "Zürich", "925"),
        ("f1", "Mehr Geld für Grünanlagen?", "weiß nicht", "Zürich", "0"),
        ("2", 'Ist "gut" gut?', "Größer; kleiner", "Köln", "12345678"),
        ("2", 'Ist "gut" gut?', "gleich | anders", "Köln", "3"),
    ],
    columns=COLUMNS,
)


def same(one: SurveyContent, other: SurveyContent) -> bool:
    """Whether two surveys have the same questions and answers."""
    return (
        one.questions == other.questions
        and one.answers.groups == other.answers.groups
        and all(
            np.array_equal(getattr(one.answers, name), getattr(other.answers, name))
            for name in ("group", "question", "shares", "respondents")
        )
    )


def numbered(ids: Sequence[Any], options: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of a table in which two groups answer a question for each id."""
    return [
        {
            "question_id": id_,
            "question": f"Is it {number}?",
            "option": option,
            "group": group,
            "count": 1,
        }
        for group in ("North", "South")
        for number, id_ in enumerate(ids)
        for option in options
    ]
