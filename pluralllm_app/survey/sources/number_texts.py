"""Numbers as ids, groups and options that are written in two ways."""

from collections.abc import Iterable
from pathlib import Path

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions


def refuse_two_texts_of_a_number(
    file: Path, questions: Questions, groups: Iterable[str] = ()
) -> None:
    """Refuse 1 beside 01: spreadsheets drop the zeros in some rows and not in others."""
    for column, texts in (
        ("question_id", questions.ids),
        ("group", groups),
        *(("option", options) for options in questions.options),
    ):
        seen: dict[str, str] = {}
        for text in texts:
            if text.isdecimal() and seen.setdefault(text.lstrip("0"), text) != text:
                other = seen[text.lstrip("0")]
                raise SurveyError(
                    f"{file} has both {other!r} and {text!r} as {column}: write them alike if "
                    "they are the same, or else put a letter in front"
                )
