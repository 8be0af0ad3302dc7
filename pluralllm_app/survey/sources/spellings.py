"""Ids, groups and options that are written in two ways."""

from collections.abc import Iterable
from pathlib import Path

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2013\u2014\u2212", "-"),
    }
)


def refuse_two_spellings(file: Path, questions: Questions, groups: Iterable[str] = ()) -> None:
    """Refuse ids, groups and options of a question that people may mean to be the same.

    Spreadsheets drop the zeros of 01 in some rows and not in others. Files that are put together
    have both "Don't know" and "Don\u2019t know." As two options they would have nobody in common.
    """
    groups = list(groups)
    options = [("option", own) for own in questions.options]
    for column, texts in (("question_id", questions.ids), ("group", groups), *options):
        _refuse(file, column, [(text.lstrip("0"), text) for text in texts if text.isdecimal()])
    for column, texts in (("group", groups), *options):
        _refuse(file, column, [(_plain(text), text) for text in texts])


def _plain(text: str) -> str:
    plain = text.translate(_SIGNS).casefold()
    return plain.rstrip(" .,;:") or plain


def _refuse(file: Path, column: str, texts: Iterable[tuple[str, str]]) -> None:
    """Refuse two texts, each after what it is without what may be chance."""
    seen: dict[str, str] = {}
    for plain, text in texts:
        if (other := seen.setdefault(plain, text)) != text:
            raise SurveyError(
                f"{file} has both {other!r} and {text!r} as {column}: write them alike if they are "
                "the same, or else word one in another way"
            )
