"""The questions of a survey, from a table without answers.

Its columns are question_id, question and option, and perhaps `value`, the option's place on an
ordinal scale: one row for each option, in the order of the options. A table of answers, which has a
column `group`, is read as well: its options are those that occur in it, in order of first
appearance, and what else it holds is ignored.
"""

from collections.abc import Hashable
from math import isfinite, isnan, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.segments import Doubles
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.damaged_texts import damage
from pluralllm_app.survey.sources.header_rows import places_of
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.spellings import refuse_two_spellings
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import TableReader
from pluralllm_app.survey.sources.table_rows import row_numbers

COLUMNS = ("question_id", "question", "option")


class _Row(NamedTuple):
    place: str  # for messages
    question_id: str
    question: str
    option: str
    written: str  # its value, as the cell has it
    value: float = nan  # NaN: none


def read_question_table(file: Path, stated: Stated, notes: list[str]) -> Questions:
    """Read the questions of a table.

    Args:
        file: of the table, in any form that a table of answers may have.
        stated: its encoding and decimal sign, where it is not clear by itself.
        notes: where to add what was found out about the file.

    Raises:
        SurveyError: the file cannot be read or may be read in two ways, a column is missing, a text
            is empty or damaged, a question has two texts or a single option, an option has two
            values, or a row is repeated. The message has the first such row.
    """
    reader = TableReader(file, COLUMNS, ("value",), COLUMNS, stated.encoding, notes=notes)
    rows = _rows(reader, Numbers(file, "value", stated=stated.sign))
    repeats = bool(places_of("group", reader.names))
    texts: dict[str, str] = {}  # by the id of each question
    options: dict[str, dict[str, float]] = {}  # and the value of each of its options
    for row in rows:
        for name in COLUMNS:
            if not getattr(row, name):
                raise SurveyError(f"{row.place} has no {name}: write one, or remove the row")
        if texts.setdefault(row.question_id, row.question) != row.question:
            raise SurveyError(
                f"{row.place} gives question {row.question_id!r} another text than before, "
                f"{row.question[:80]!r}: write the texts alike, or give it an id of its own"
            )
        own = options.setdefault(row.question_id, {})
        if row.option in own and not repeats:
            raise SurveyError(f"{row.place} repeats option {row.option!r}: remove the row")
        before = own.setdefault(row.option, row.value)
        if before != row.value and not (isnan(before) and isnan(row.value)):
            raise SurveyError(f"{row.place} gives option {row.option!r} another value than before")
    values = [list(own.values()) for own in options.values()]
    questions = Questions(
        ids=list(texts),
        texts=list(texts.values()),
        options=[list(own) for own in options.values()],
        values=[None if all(map(isnan, own)) else own for own in values],
    )
    refuse_two_spellings(file, questions)
    questions.check()
    return questions


def _rows(reader: TableReader, numbers: Numbers) -> list[_Row]:
    """Return the rows that are not blank."""
    found: list[_Row] = []
    values: list[dict[str, Doubles]] = []
    for frame in reader:
        given = frame.get("value", pd.Series(nan, frame.index))
        values.append(numbers.read(given, row_numbers(frame.index)))
        columns = [frame[name].astype(object) for name in COLUMNS]
        for row, *cells in zip(frame.index, *columns, given.astype(object), strict=True):
            place = f"{reader.file}: data row {row + 1}"
            texts = [_text(place, *pair) for pair in zip((*COLUMNS, "value"), cells, strict=True)]
            found.append(_Row(place, texts[0], texts[1], texts[2], texts[3]))
    sign = numbers.decimal()
    read = np.concatenate([own[sign] for own in values]).tolist() if values else []
    kept = []
    for row, value in zip(found, read, strict=True):
        if not any(row[1:4]):
            continue
        if row.written and not isfinite(value):
            raise SurveyError(f"{row.place} has a value that is no finite number, {row.written!r}")
        kept.append(row._replace(value=value))
    blank = len(found) - len(kept)
    reader.notes += [f"{many(blank, 'blank row')} left out"] if blank else []
    return kept


def _text(place: str, name: str, cell: object) -> str:
    if not isinstance(cell, Hashable):
        raise SurveyError(f"{place} holds a list or an object as {name}")
    if isinstance(cell, str) and (fault := damage(cell)):
        raise SurveyError(f"{place}: the {name} {cell[:80]!r} {fault}")
    if isinstance(cell, str) and (found := hidden(cell)):
        raise SurveyError(f"{place}: the {name} {cell[:80]!r} has the hidden character {found}")
    return cell_text(cell)
