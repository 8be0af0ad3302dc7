"""Wide tables, as toplines and crosstabs are published, read as long ones.

    question_id, question, option, North, South ...       a column for each group
    question_id, question, group, Yes, No, Don't know ... a column for each option

Columns `value` and `description` mean what they mean in a long table. An empty cell says nothing: a
group was not asked, or a question does not have that option.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.segments import Bools
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import AMOUNTS, TableReader
from pluralllm_app.survey.sources.table_rows import row_numbers
from pluralllm_app.survey.sources.wide_columns import foreign_name, foreign_numbers

KNOWN = ("question_id", "question", "option", "group", "value", "description")
MOST_CELLS = 2**24  # of the table, all of which is in memory
_NEAR = 2  # percentages of an answer sum to from 98 to 102
_SHARE, _COUNT = AMOUNTS


def is_wide(names: Sequence[str]) -> bool:
    """Whether a table with these columns has a column for each group, or for each option."""
    known = {clean_text(name).casefold() for name in names}
    others = known - {*KNOWN, ""}
    return (
        {"question_id", "question"} <= known
        and not known & {*AMOUNTS}
        and len(others) >= 2
        and not {"option", "group"} <= known
    )


@dataclass
class WideReader:
    """Reads a wide table as if it were a long one; what `TableReader` has, this has as well."""

    file: Path
    stated: Stated
    notes: list[str] = field(default_factory=list)
    names: Sequence[str] = ()

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Yield one frame, with a row for each cell; its index is the number of the table's row.

        Raises:
            SurveyError: the file cannot be read, is too large, has a column of totals, or does not
                say whether its numbers are shares or counts.
        """
        reader = TableReader(
            self.file, (), None, encoding=self.stated.encoding, usual=KNOWN, notes=self.notes
        )
        frames, cells = [], 0
        for frame in reader:
            cells += frame.size
            if cells > MOST_CELLS:
                raise SurveyError(
                    f"{self.file} has more than {MOST_CELLS:,} cells and no column share or count: "
                    "write one row for each question, group and option"
                )
            frames.append(frame.astype(object))
        self.names = reader.names
        reader.refuse_twice()
        if frames:
            yield self._long(pd.concat(frames))

    def _long(self, table: pd.DataFrame) -> pd.DataFrame:
        by_name = {name.casefold(): name for name in table.columns}
        kept = {by_name[name]: name for name in KNOWN if name in by_name}
        others = [name for name in table.columns if name not in kept]
        wide = [name for name in others if not _is_blank(table[name]).all()]
        if not wide:
            raise SurveyError(f"{self.file} has no number in any of its columns")
        if any(map(str.isspace, wide)):
            raise SurveyError(f"{self.file} has a column without a name: name it, or remove it")
        what = "group" if "option" in by_name else "option"
        for name in wide:
            if reason := foreign_name(name, table[name]):
                raise self._foreign(name, what, reason)
        self.notes.append(f"a column for each {what}, {len(wide)} of them, the first {wide[0]!r}")
        long = table.rename(columns=kept)
        parts = []
        for name in wide:
            part = long[list(kept.values())].copy()
            part[what], part["amount"] = name, table[name]
            parts.append(part)
        cells = pd.concat(parts).sort_index(kind="stable")
        cells = cells[~_is_blank(cells["amount"])]
        self._count_empty(table, cells.index)
        # A row that lacks a text is refused as such, and says nothing of the numbers.
        texts = [table[name] for name, own in kept.items() if own not in ("value", "description")]
        whole = table.index[~np.logical_or.reduce([_is_blank(column) for column in texts])]
        kind = self._kind(cells[cells.index.isin(whole)], what)
        return cells.rename(columns={"amount": kind})

    def _count_empty(self, table: pd.DataFrame, used: pd.Index) -> None:
        """Say how many rows have texts but no number, as notes below a table have."""
        empty = table[~table.index.isin(used)]
        texts = [next(filter(None, map(cell_text, row)), "") for _, *row in empty.itertuples()]
        found = [(row + 1, text) for row, text in zip(empty.index, texts, strict=True) if text]
        if found:
            row, text = found[0]
            self.notes.append(
                f"{many(len(found), 'row')} without a number left out, the first is data row "
                f"{row}, {shorten(text, 60, placeholder=' ...')!r}"
            )

    def _foreign(self, name: str, what: str, reason: str) -> SurveyError:
        article = "an" if what == "option" else "a"
        return SurveyError(
            f"{self.file}: the column {name!r} is hardly {article} {what}: {reason}; remove it"
        )

    def _kind(self, cells: pd.DataFrame, what: str) -> str:
        """Return whether the numbers are shares or counts."""
        numbers = Numbers(self.file, "share", True, True, self.stated.sign)
        read = numbers.read(cells["amount"], row_numbers(cells.index))[numbers.decimal()]
        given = np.nan_to_num(read)
        faulty = not np.isfinite(read).all() or (given < 0).any()  # which the rows will refuse
        if not faulty:
            for name, reason in foreign_numbers(given, cells, what):
                raise self._foreign(name, what, reason)
        if faulty or numbers.percent is not None or (given <= 1).all():
            return _SHARE
        answer = [name for name in ("question_id", "group") if name in cells.columns]
        sums = pd.Series(given).groupby([cells[name].map(cell_text).array for name in answer]).sum()
        percentages = (np.abs(sums - 100) <= _NEAR).mean()
        if percentages == 1:
            return _SHARE
        if (given == np.rint(given)).all() and percentages < 0.5:  # a part may do so by chance
            return _COUNT
        raise SurveyError(
            f"{self.file} has a column for each {what}, and does not say what its numbers are: "
            f"{percentages:.0%} of the answers sum to 100. Write percent signs, or one row for "
            "each question, group and option with a column share or count"
        )


def _is_blank(cells: pd.Series) -> Bools:
    blank: Bools = cells.map(lambda cell: not cell_text(cell)).to_numpy(bool)
    return blank
