"""A survey of one's own: a table with one row per question, group and option.

Its columns are question_id, question, option, group, and either `share` (the part of the group that
picks the option; shares sum to 1 per question and group) or `count` (how many people picked it). A
column `value` may give the option's ordinal value, and a column `description` may say who the group
is. The options of a question are all those that occur with it, in order of first appearance; if a
group has no row for an option, nobody in it picked that option. Spaces around a text are ignored,
and accents are brought into Unicode form NFC.

A table is read in batches. Of each row only 16 bytes are kept: the numbers of its group and of its
option, and its share or count. Memory therefore depends on the number of rows, shares and different
texts, but not on how often a text repeats: at most about 60 bytes per row, plus one batch.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts, segment_sums
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent
from pluralllm_app.survey.sources.table_files import read_batches, require_columns, shown_columns

TEXT_COLUMNS = ("question_id", "question", "option", "group")
SUM_TOLERANCE = 0.02  # published shares are rounded
MOST = 1e12  # people; sums of counts still fit into 64-bit integers
_NO_TEXT = object()  # stands for a cell that holds a list or an object
_PAIR = 2**32  # two smaller numbers are packed into one: first * _PAIR + second


def read_table(file: Path) -> SurveyContent:
    """Read a long table into a survey.

    Raises:
        SurveyError: the file cannot be read, a column is missing, a text is empty, a number is not
            a share or count, a row is repeated, or a question has two texts.
    """
    rows = _Rows(file)
    questions, position = rows.questions()
    # A cell is a group with a question that it answers, in the order of groups, then questions.
    cells = np.unique(np.concatenate([np.unique(rows.cells(batch)) for batch in rows.batches]))
    group, question = np.divmod(cells, _PAIR)
    options = questions.counts[question]
    starts = segment_starts(options)
    flat = np.full(int(options.sum()), np.nan)
    for batch in rows.batches:
        at = starts[np.searchsorted(cells, rows.cells(batch))] + position[batch.choice]
        repeated = ~np.isnan(flat[at]) | pd.Series(at).duplicated().to_numpy()
        rows.faults.note("repeat a question_id, group and option", repeated, batch.first_row)
        flat[at] = batch.amount
    rows.faults.refuse()
    groups, counted, descriptions = rows.groups.texts, rows.counted, rows.descriptions()
    del rows, batch, cells, starts
    flat[np.isnan(flat)] = 0
    totals = segment_sums(flat, options)
    flat /= np.repeat(np.where(totals > 0, totals, 1), options)
    answers = Answers(
        groups=groups,
        group=group,
        question=question,
        shares=flat,
        # Counts may be weighted, so that some answers weigh less than one person in all.
        respondents=np.rint(totals).clip(1) if counted else None,
    )
    asked = totals > 0
    if not counted:
        _refuse_sums(file, totals, answers, questions)
    survey = SurveyContent(
        name=file.stem,
        source=f"table {file.name}",
        licence="not stated",
        questions=questions,
        answers=answers.select(np.flatnonzero(asked), questions),
        dropped={"answers of a group that counts nobody": int((~asked).sum())},
        descriptions=descriptions,
    )
    return survey.keep_questions(questions.counts >= 2, "questions with fewer than two options")


@dataclass(frozen=True)
class _Batch:
    first_row: int  # of the table, from 0
    group: NDArray[np.int32]  # [n]
    choice: NDArray[np.int32]  # [n] an option of a question
    amount: Doubles  # [n] share or count


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


class _Faults:
    """Collects which rows of a table have which fault."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, tuple[int, int]] = {}  # number of rows, and the first

    def note(self, fault: str, wrong: Bools, first_row: int) -> None:
        """Note the rows of a batch [n] that have a fault."""
        rows = np.flatnonzero(wrong)
        # Noted even if there are none, so that faults are reported in the order of the checks.
        count, first = self._found.get(fault, (0, 0))
        if len(rows) and not count:
            first = first_row + int(rows[0]) + 1
        self._found[fault] = (count + len(rows), first)

    def refuse(self) -> None:
        """Raise SurveyError if any row has a fault."""
        for fault, (count, first) in self._found.items():
            if count:
                raise SurveyError(
                    f"{self._file}: {count} row(s) {fault}, the first is data row {first}"
                )


class _Rows:
    """The rows of a table as numbers; all faults but repeated rows have been refused."""

    def __init__(self, file: Path) -> None:
        self.batches: list[_Batch] = []
        self.faults = _Faults(file)
        self.groups = _Numbering()
        self.counted = False
        self._ids, self._questions, self._options = _Numbering(), _Numbering(), _Numbering()
        self._choices = _Numbering()  # pairs of question and option
        self._text_of: Ints = np.empty(0, np.int64)  # of each question
        self._value_of: Doubles = np.empty(0)  # of each choice
        self._described: dict[int, str] = {}  # what is said of a group, by its number
        self._read(file)
        self.faults.refuse()

    def _read(self, file: Path) -> None:
        amounts: set[str] = set()
        for frame, first_row in _with_first_row(read_batches(file, TEXT_COLUMNS)):
            require_columns(file, frame, TEXT_COLUMNS)
            amounts |= {"share", "count"} & set(frame.columns)
            if len(amounts) != 1 or not amounts <= set(frame.columns):
                found = shown_columns(frame)
                raise SurveyError(f"{file} needs one column of 'share' and 'count'; found: {found}")
            self.counted = "count" in amounts
            self._add(frame, first_row)

    def _add(self, frame: pd.DataFrame, first_row: int) -> None:
        kinds = (self._ids, self._questions, self._options, self.groups)
        question, text, option, group = (
            self._texts(frame, column, numbers, first_row)
            for column, numbers in zip(TEXT_COLUMNS, kinds, strict=True)
        )
        amount = self._amounts(frame, first_row)
        self._text_of = _extended(self._text_of, question, text)
        self.faults.note(
            "give a question_id another question text than before",
            text != self._text_of[question],
            first_row,
        )
        self._describe(frame, group, first_row)
        codes, pairs = pd.factorize(question * _PAIR + option)
        choice = self._choices.of(pairs.tolist())[codes]
        value = self._values(frame, first_row)
        self._value_of = _extended(self._value_of, choice, value)
        before = self._value_of[choice]
        self.faults.note(
            "give an option another ordinal value than before",
            (value != before) & ~(np.isnan(value) & np.isnan(before)),
            first_row,
        )
        numbers = (group.astype(np.int32), choice.astype(np.int32))
        self.batches.append(_Batch(first_row, *numbers, amount))

    def _texts(self, frame: pd.DataFrame, column: str, numbers: _Numbering, first_row: int) -> Ints:
        """Return the number of each row's text, [n]."""
        codes, texts = self._cells(frame, column, first_row)
        blank = np.array([not text for text in texts], bool)
        self.faults.note(f"have no {column}", blank[codes], first_row)
        return numbers.of(texts)[codes]

    def _describe(self, frame: pd.DataFrame, group: Ints, first_row: int) -> None:
        """Keep what the rows say of their group [n]; an empty cell says nothing."""
        if "description" not in frame.columns:
            return
        codes, texts = self._cells(frame, "description", first_row)
        pairs, row = np.unique(group * _PAIR + codes, return_inverse=True)
        stated = [(pair // _PAIR, " ".join(texts[pair % _PAIR].split())) for pair in pairs.tolist()]
        other = [
            bool(text) and self._described.setdefault(own, text) != text for own, text in stated
        ]
        fault = "describe a group in other words than before"
        self.faults.note(fault, np.array(other, bool)[row], first_row)

    def _cells(self, frame: pd.DataFrame, column: str, first_row: int) -> tuple[Ints, list[str]]:
        """Return the different texts of a column, and which of them each row has, [n]."""
        cells = frame[column]
        try:
            codes, different = pd.factorize(cells, use_na_sentinel=False)
        except TypeError:  # lists or objects, which cannot be compared
            cells = cells.map(lambda cell: cell if isinstance(cell, Hashable) else _NO_TEXT)
            codes, different = pd.factorize(cells, use_na_sentinel=False)
        nested = np.array([text is _NO_TEXT for text in different], bool)
        self.faults.note(f"hold a list or an object as {column}", nested[codes], first_row)
        texts = ["" if pd.isna(text) else clean_text(str(text)) for text in different]
        return codes, texts

    def _amounts(self, frame: pd.DataFrame, first_row: int) -> Doubles:
        column = "count" if self.counted else "share"
        amount: Doubles = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        finite = np.isfinite(amount)
        self.faults.note(f"have no finite number as {column}", ~finite, first_row)
        self.faults.note("have a negative share or count", amount < 0, first_row)
        self.faults.note(f"have a {column} above {MOST:g}", amount > MOST, first_row)
        return amount

    def _values(self, frame: pd.DataFrame, first_row: int) -> Doubles:
        """Return the ordinal value of each row, [n], NaN where there is none."""
        if "value" not in frame.columns:
            return np.full(len(frame), np.nan)
        column = frame["value"]
        values: Doubles = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        stated = (column.notna() & (column.astype(str).str.strip() != "")).to_numpy()
        wrong = stated & ~np.isfinite(values)
        self.faults.note("have a value that is no finite number", wrong, first_row)
        return values

    def _question_of(self) -> Ints:
        """Return the question of each choice, [choices]."""
        return np.array(self._choices.texts, np.int64) // _PAIR

    def descriptions(self) -> dict[str, str]:
        """Return what is said of the groups, by name."""
        names = self.groups.texts
        return {names[group]: text for group, text in self._described.items()}

    def cells(self, batch: _Batch) -> Ints:
        """Return the group and question of each row of a batch, packed into one number, [n]."""
        cells: Ints = batch.group.astype(np.int64) * _PAIR + self._question_of()[batch.choice]
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
        options = known[np.array(self._choices.texts, np.int64)[order] % _PAIR]
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


def _with_first_row(frames: Iterable[pd.DataFrame]) -> Iterator[tuple[pd.DataFrame, int]]:
    first_row = 0
    for frame in frames:
        yield frame, first_row
        first_row += len(frame)


def _extended(known: NDArray[Any], number: Ints, value: NDArray[Any]) -> NDArray[Any]:
    """Append to `known` [k] the first `value` [n] of each `number` [n] from k on."""
    if number.max(initial=-1) < len(known):
        return known
    new, first = np.unique(number, return_index=True)
    return np.concatenate([known, value[first[new >= len(known)]]])


def _refuse_sums(file: Path, sums: Doubles, answers: Answers, questions: Questions) -> None:
    wrong = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(wrong):
        group = answers.groups[answers.group[wrong[0]]]
        question = questions.ids[answers.question[wrong[0]]]
        raise SurveyError(
            f"{file}: the shares of {len(wrong)} answer(s) do not sum to 1, the first is question "
            f"{question!r}, group {group!r}: mend them, or give a column 'count' instead"
        )
