"""The rows of a long table as numbers, read in batches.

Of each row 16 bytes are kept: the numbers of its group and of its option, and its share or count.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts
from pluralllm_app.core.wording import many
from pluralllm_app.errors import ColumnError, SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.damaged_texts import damage
from pluralllm_app.survey.sources.faults import Faults
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.spellings import refuse_two_spellings
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import AMOUNTS, TableReader, shown_names

TEXT_COLUMNS = ("question_id", "question", "option", "group")
MOST = 1e12  # people; sums of counts still fit into 64-bit integers
PAIR = 2**32  # two smaller numbers are packed into one: first * PAIR + second
_NESTED = "\0"  # stands for the text of a cell that holds a list or an object

Column = tuple[Ints, list[str]]  # of each row [n] the place of its text among the different ones


@dataclass(frozen=True)
class Batch:
    """Some rows of the table."""

    index: pd.Index  # [n] the rows' numbers, from 0; a range unless some are left out
    group: NDArray[np.int32]  # [n]
    choice: NDArray[np.int32]  # [n] an option of a question
    amounts: Mapping[str, Doubles]  # [n] share or count, by decimal sign

    @property
    def rows(self) -> Ints:
        """[n] the rows' numbers, from 0."""
        return row_numbers(self.index)


class LongReader(Protocol):
    """What yields frames of a long table."""

    notes: list[str]
    names: Sequence[str]

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Yield frames, whose index is the number of the row in the file, less 1."""


class Rows:
    """The rows of a table; all faults but repeated rows have been refused."""

    def __init__(
        self,
        file: Path,
        stated: Stated,
        group: str | None = None,
        reader: LongReader | None = None,
    ) -> None:
        """Read the table.

        Args:
            file: the table.
            stated: what its user knows of it.
            group: whose answers it holds, where it has no column of that name.
            reader: what reads the file, if it is not a long table itself.

        Raises:
            ColumnError: a column is missing.
            SurveyError: as `read_table` says, but for repeated rows and sums.
        """
        self._file = file
        self._group = group
        self.batches: list[Batch] = []
        self.faults = Faults(file)
        self.groups = _Numbering()
        self._blank = 0
        self._ids, self._questions, self._options = _Numbering(), _Numbering(), _Numbering()
        self._choices = _Numbering()  # pairs of question and option
        self._text_of: Ints = np.empty(0, np.int64)  # of each question
        self._value_of: Doubles = np.empty(0)  # of each choice
        self._described: dict[int, str] = {}  # what is said of a group, by its number
        self._shares = Numbers(file, "share", percents=True, stated=stated.sign)
        self._counts = Numbers(file, "count", thousands=True, stated=stated.sign)
        self._values = Numbers(file, "value", stated=stated.sign)
        required = [each for each in TEXT_COLUMNS if each != "group" or group is None]
        optional = ("group", *AMOUNTS, "value", "description")
        table = TableReader(file, required, optional, TEXT_COLUMNS, stated.encoding)
        self._reader: LongReader = table if reader is None else reader
        for frame in self._reader:
            found = [name for name in AMOUNTS if name in frame.columns]
            if len(found) != 1:
                names = self._reader.names
                raise ColumnError(
                    f"{file} needs one column of 'share' and 'count'; found: {shown_names(names)}",
                    names,
                )
            self.amounts = self._counts if "count" in found else self._shares
            self._add(frame)
        if not self.batches:
            raise SurveyError(f"{file} has no rows that are not blank")
        self.faults.refuse()
        self.decimal = self.amounts.decimal()
        if mixed := self.amounts.mixed():
            raise SurveyError(mixed)
        questions, _ = self.questions()
        refuse_two_spellings(file, questions, self.groups.texts)

    @property
    def percent(self) -> bool:
        """Whether shares have percent signs."""
        return self.amounts.percent is not None

    @property
    def counted(self) -> bool:
        """Whether the table has counts."""
        return self.amounts is self._counts

    def notes(self) -> list[str]:
        """Return what was understood of the file, as far as it is unusual."""
        blank = [f"{many(self._blank, 'blank row')} left out"] if self._blank else []
        known = self._value_of[~np.isnan(self._value_of)]
        values = [f"ordinal values from {known.min():g} to {known.max():g}"] if len(known) else []
        return [*self._reader.notes, *self.amounts.notes(), *values, *blank]

    def _add(self, frame: pd.DataFrame) -> None:
        named = [column for column in TEXT_COLUMNS if column in frame.columns]
        columns = [self._cells(frame, column) for column in named]
        blank = np.logical_and.reduce([_is("", column) for column in columns])
        blank &= self._without_number(frame, blank)
        if blank.any():
            self._blank += int(blank.sum())
            frame = frame[~blank]
            columns = [self._cells(frame, column) for column in named]
        if self._group is not None and "group" not in named:
            columns.append((np.zeros(len(frame), np.int64), [cell_text(self._group)]))
        if len(frame):
            self._add_rows(frame, columns)

    def _add_rows(self, frame: pd.DataFrame, columns: list[Column]) -> None:
        kinds = (self._ids, self._questions, self._options, self.groups)
        lacking = np.logical_or.reduce([_is("", column) for column in columns])
        remarks = self._without_number(frame, lacking)
        fault = "have a text but no number, as a note below a table has (remove them)"
        self._note(fault, remarks, frame, "question_id")
        for name, column in zip(TEXT_COLUMNS, columns, strict=True):
            self._note(f"hold a list or an object as {name}", _is(_NESTED, column), frame, name)
            self._note(f"have no {name} (every row needs its own)", _is("", column), frame)
        question, text, option, group = (
            numbers.of(texts)[codes] for numbers, (codes, texts) in zip(kinds, columns, strict=True)
        )
        amounts = self._read_amounts(frame)
        self._text_of = _extended(self._text_of, question, text)
        self._note(
            "give a question_id another question text than before",
            text != self._text_of[question],
            frame,
            "question",
        )
        self._describe(frame, group)
        codes, pairs = pd.factorize(question * PAIR + option)
        choice = self._choices.of(pairs.tolist())[codes]
        value = self._read_values(frame)
        self._value_of = _extended(self._value_of, choice, value)
        before = self._value_of[choice]
        self._note(
            "give an option another ordinal value than before",
            (value != before) & ~(np.isnan(value) & np.isnan(before)),
            frame,
            "value",
        )
        numbers = (group.astype(np.int32), choice.astype(np.int32))
        self.batches.append(Batch(frame.index, *numbers, amounts))

    def _without_number(self, frame: pd.DataFrame, among: Bools) -> Bools:
        """Return which of the rows `among` those of `frame` have an empty share or count."""
        empty = among.copy()
        cells = frame[self.amounts.column][among]
        empty[among] = [isinstance(cell, Hashable) and not cell_text(cell) for cell in cells]
        return empty

    def _note(
        self, fault: str, wrong: Bools, frame: pd.DataFrame, column: str | None = None
    ) -> None:
        cells = frame[column] if column in frame.columns else None
        self.faults.note(fault, wrong, frame.index, cells)

    def _cells(self, frame: pd.DataFrame, column: str) -> Column:
        """Return the different texts of a column, and which of them each row has."""
        cells = frame[column]
        if cells.dtype == object and {*map(type, cells)} != {str}:
            # One by one, because 1 and True are equal, and lists cannot be compared.
            cells = cells.map(_plain)
        codes, different = pd.factorize(cells, use_na_sentinel=False)
        for code, text in enumerate(different):
            if isinstance(text, str) and text != _NESTED and (fault := _fault(text)):
                row = frame.index[int(np.argmax(codes == code))] + 1
                shown = shorten(repr(text[:80]), 80)
                raise SurveyError(f"{self._file}: the {column} {shown} in data row {row} {fault}")
        return codes, [text if text == _NESTED else cell_text(text) for text in different]

    def _describe(self, frame: pd.DataFrame, group: Ints) -> None:
        """Keep what the rows say of their group [n]; an empty cell says nothing."""
        if "description" not in frame.columns:
            return
        codes, texts = column = self._cells(frame, "description")
        nested = _is(_NESTED, column)
        self._note("hold a list or an object as description", nested, frame, "description")
        amounts = frame[self.amounts.column]
        if isinstance(amounts.iloc[0], str):  # 12,5 may have been cut at its comma
            half = np.array([text.isdecimal() and len(text) < 4 for text in texts], bool)[codes]
            fault = "have a description that may be half of a number (12,5 needs quotation marks)"
            self._note(fault, half, frame, "description")
        pairs, row = np.unique(group * PAIR + codes, return_inverse=True)
        stated = [(pair // PAIR, texts[pair % PAIR]) for pair in pairs.tolist()]
        other = [
            bool(text) and self._described.setdefault(own, text) != text for own, text in stated
        ]
        fault = "describe a group in other words than before"
        self._note(fault, np.array(other, bool)[row], frame, "description")

    def _read_amounts(self, frame: pd.DataFrame) -> dict[str, Doubles]:
        column = self.amounts.column
        amounts = self.amounts.read(frame[column], row_numbers(frame.index))
        any_reading, *_ = amounts.values()
        largest = np.maximum.reduce(list(amounts.values()))
        wrong = ~np.isfinite(any_reading)
        self._note(f"have no finite number as {column}", wrong, frame, column)
        self._note(f"have a negative {column}", any_reading < 0, frame, column)
        self._note(f"have a {column} above {MOST:g}", largest > MOST, frame, column)
        return amounts

    def _read_values(self, frame: pd.DataFrame) -> Doubles:
        """Return the ordinal value of each row, [n], NaN where there is none."""
        if "value" not in frame.columns:
            return np.full(len(frame), np.nan)
        values, *_ = self._values.read(frame["value"], row_numbers(frame.index)).values()
        lacking = ~np.isfinite(values)
        if lacking.any():
            stated = [
                not isinstance(cell, Hashable) or bool(cell_text(cell))
                for cell in frame["value"][lacking]
            ]
            lacking[lacking] = stated
        self._note("have a value that is no finite number", lacking, frame, "value")
        return values

    def _question_of(self) -> Ints:
        """Return the question of each choice, [choices]."""
        return np.array(self._choices.texts, np.int64) // PAIR

    def descriptions(self) -> dict[str, str]:
        """Return what is said of the groups, by name."""
        names = self.groups.texts
        return {names[group]: text for group, text in self._described.items()}

    def cells(self, batch: Batch) -> Ints:
        """Return the group and question of each row of a batch, packed into one number, [n]."""
        cells: Ints = batch.group.astype(np.int64) * PAIR + self._question_of()[batch.choice]
        return cells

    def questions(self) -> tuple[Questions, Ints]:
        """Return the questions, and each choice's place among its question's options, [choices]."""
        question = self._question_of()
        order = np.argsort(question, kind="stable")
        counts = np.bincount(question, minlength=len(self._ids))
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order)) - np.repeat(segment_starts(counts), counts)
        ends = np.cumsum(counts)[:-1]
        known = np.array(self._options.texts, object)
        options = known[np.array(self._choices.texts, np.int64)[order] % PAIR]
        texts = self._questions.texts
        return Questions(
            ids=self._ids.texts,
            texts=[texts[text] for text in self._text_of],
            options=[part.tolist() for part in np.split(options, ends)],
            values=[
                None if np.isnan(part).all() else part.tolist()
                for part in np.split(self._value_of[order], ends)
            ],
        ), position


class _Numbering:
    """Gives a number to each different thing, in the order of first appearance."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def texts(self) -> list[str]:
        """The things that have a number, in that order."""
        return list(self._known)

    def of(self, things: Iterable[Any]) -> Ints:
        """Return the number of each thing."""
        known = self._known
        return np.array([known.setdefault(thing, len(known)) for thing in things], np.int64)


def row_numbers(index: pd.Index) -> Ints:
    """Return the numbers in an index; a range would keep them."""
    if isinstance(index, pd.RangeIndex):
        return np.arange(index.start, index.stop, index.step)
    numbers: Ints = index.to_numpy(np.int64)
    return numbers


def _plain(cell: object) -> str:
    """Return a text as it is, and what another cell says."""
    if isinstance(cell, str):
        return cell
    return cell_text(cell) if isinstance(cell, Hashable) else _NESTED


def _fault(text: str) -> str:
    if '\\"' in text:
        return 'has a quotation mark after a backslash: save the table with doubled ones, ""'
    return damage(text)


def _is(wanted: str, column: Column) -> Bools:
    codes, texts = column
    found: Bools = np.array([text == wanted for text in texts], bool)[codes]
    return found


def _extended(known: NDArray[Any], number: Ints, value: NDArray[Any]) -> NDArray[Any]:
    """Append to `known` [k] the first `value` [n] of each `number` [n] from k on."""
    if number.max(initial=-1) < len(known):
        return known
    new, first = np.unique(number, return_index=True)
    return np.concatenate([known, value[first[new >= len(known)]]])
