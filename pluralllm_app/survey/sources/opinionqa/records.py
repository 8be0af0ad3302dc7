"""OpinionQA as a list of JSON records: one answer of one group to one question each.

    {"question": "Question: How often?\\nOptions: A. Often B. Never\\nAnswer:",
     "options": ["Often", "Never", "Refused"], "attribute": "SEX_Female",
     "gold_distribution": [0.25, 0.7, 0.05]}

The records do not say which ordinal values the options have: the place of an option in the list
stands in for its value. Nor do they say how many people were asked, but where their shares are
exact quotients of counts, `people` infers it.
"""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent, question_id
from pluralllm_app.survey.sources.opinionqa.content import (
    GROUPS,
    SUM_TOLERANCE,
    Answer,
    Question,
    survey_of,
)
from pluralllm_app.survey.sources.opinionqa.people import UNKNOWN, infer_people
from pluralllm_app.survey.sources.text_files import encoding_of, open_text

REFUSAL = "refused"
MOST_PACKED = 2**27  # bytes that gzip compressed: in memory, JSON can become twenty times as large
# The prompt around a question.
_FRAME = re.compile(r"(?:Question:)?(.*?)(?:\nOptions:.*)?(?:\nAnswer:)?\s*", re.DOTALL)


def read_records(file: Path, encoding: str | None = None) -> SurveyContent:
    """Read the records of `file`; fields other than the four above are ignored.

    Left out and counted are records with a single option, with an option twice, or of a group that
    has answered the same question in an earlier record, as in another wave of the panel.

    Args:
        file: may be compressed by gzip.
        encoding: of `file` where it is not in Unicode, if the user states it.

    Raises:
        SurveyError: the file cannot be read, a record lacks a field or has one of another kind, or
            its shares do not fit its options or do not sum to 1.
    """
    questions: dict[str, Question] = {}
    answers: list[Answer] = []
    notes: list[str] = []
    seen: set[tuple[str, str]] = set()
    others = damaged = again = refusals = 0
    for number, record in enumerate(_records(file, encoding, notes), start=1):
        place = f"{file}: record {number}"
        text, options, group, shares = _fields(place, record)
        if group not in GROUPS:
            others += 1
            continue
        kept = [at for at, option in enumerate(options) if option.casefold() != REFUSAL]
        if len(kept) < 2 or len(set(options)) < len(options):
            damaged += 1
            continue
        refusals += len(kept) < len(options)
        given = [shares[at] for at in kept]
        if 0 < sum(given) < 1:
            given = [share / sum(given) for share in given]
        offered = [options[at] for at in kept]
        id_ = question_id(text, offered)
        if (group, id_) in seen:
            again += 1
            continue
        seen.add((group, id_))
        questions[id_] = Question(text, offered, [float(at + 1) for at in range(len(kept))])
        answers.append(Answer(place, group, id_, given, UNKNOWN))
    dropped = {
        "answers of groups beyond the 22": others,
        "answers with a single option or an option twice": damaged,
        "answers of a group to a question that it has answered": again,
    }
    people = infer_people([answer.shares for answer in answers])
    answers = [replace(own, respondents=n) for own, n in zip(answers, people, strict=True)]
    note = f"refusals left out of {refusals:,} answers" if refusals else "no refusals among them"
    note += "; the places of options serve as ordinal values"
    if not all(map(math.isnan, people)):
        note += "; respondents inferred from shares that are exact quotients"
    return survey_of(questions, answers, dropped, "; ".join([*notes, note]))


def _records(file: Path, encoding: str | None, notes: list[str]) -> list[Any]:
    try:
        with open_text(file, encoding_of(file, encoding, notes), MOST_PACKED) as text:
            records = json.load(text)
    except UnicodeDecodeError as error:
        raise SurveyError(
            f"{file} has bytes that are no text in its encoding ({error}): pass another "
            "--encoding, or save it as UTF-8"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error
    if not isinstance(records, list) or not records:
        raise SurveyError(f"{file} is no list of records")
    return records


def _fields(place: str, record: Any) -> tuple[str, list[str], str, list[float]]:
    """Return question, options, group and shares of a record."""
    kinds = {"question": str, "options": list, "attribute": str, "gold_distribution": list}
    for key, kind in kinds.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise SurveyError(f"{place} has no {key!r} that is a {kind.__name__}")
    options, shares = record["options"], record["gold_distribution"]
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise SurveyError(f"{place} has an option that is no text")
    if not all(type(share) in (int, float) for share in shares):
        raise SurveyError(f"{place} has a share that is no number")
    if len(options) != len(shares):
        raise SurveyError(f"{place} has {len(options)} options but {len(shares)} shares")
    if not abs(sum(shares) - 1) <= SUM_TOLERANCE:
        raise SurveyError(f"{place} has shares that sum to {sum(shares):.4g} and not to 1")
    framed = _FRAME.fullmatch(record["question"])
    text = clean_text(framed.group(1)) if framed else ""
    if not text:
        raise SurveyError(f"{place} has no question")
    return text, [clean_text(option) for option in options], clean_text(record["attribute"]), shares
