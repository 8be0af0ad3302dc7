"""Numbers in a column, however they are written: 7.5 or 7,5, 1,234 or 1.234 or 1 234, 25 %.

A text such as "7.474" is a number with a decimal point, or one with a dot between thousands, where
the decimal sign is a comma. Which of both it is depends on the other cells of its column. Where
they do not say it, the column is refused: the two readings differ by a factor of 1000.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.segments import Bools, Doubles, Ints
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.stated import DECIMALS

FIRST = 1000  # cells
_NAMES = {sign: name for name, sign in DECIMALS.items()}
_GAPS = {".": "dots", ",": "commas", " ": "spaces", "'": "apostrophes"}
_PLAIN = str.maketrans("\u2212\u2013\u2019", "--'")  # of a minus sign, a dash, an apostrophe


def _pattern(decimal: str) -> re.Pattern[str]:
    other = "," if decimal == "." else "."
    thousands = rf"[1-9]\d{{0,2}}(?P<gap>[{other} '])\d{{3}}(?:(?P=gap)\d{{3}})*"
    return re.compile(
        rf"(?P<sign>[-+]?)(?P<whole>{thousands}|\d*)(?:[{decimal}](?P<fraction>\d*))?"
        r"(?P<exponent>[eE][-+]?\d+)?\s?(?P<percent>%?)",
        re.ASCII,
    )


_PATTERNS = {sign: _pattern(sign) for sign in DECIMALS.values()}


@dataclass(frozen=True)
class Reading:
    """What a text says as a number."""

    number: float = nan  # NaN: it is none
    gap: str = ""  # the sign between its thousands
    percent: bool = False


def reading(text: str, decimal: str) -> Reading:
    """Read a clean text as a number with the decimal sign `decimal`.

    >>> reading("1.234,5 %", ",")
    Reading(number=1234.5, gap='.', percent=True)
    >>> reading("1.234,5", ".")
    Reading(number=nan, gap='', percent=False)
    """
    match = _PATTERNS[decimal].fullmatch(text if text.isascii() else text.translate(_PLAIN))
    if match is None or not (match["whole"] or match["fraction"]):
        return Reading()
    gap = match["gap"] or ""
    whole = match["whole"].replace(gap, "") if gap else match["whole"]
    number = f"{match['sign']}{whole}.{match['fraction'] or '0'}{match['exponent'] or ''}"
    return Reading(float(number), gap, bool(match["percent"]))


@dataclass(frozen=True)
class Cell:
    """A cell of the column, for messages."""

    row: int  # from 1
    text: str

    def __str__(self) -> str:
        return f"{self.text!r} in data row {self.row}"


@dataclass
class Numbers:
    """Reads the cells of one column, batch by batch, and learns how its numbers are written."""

    file: Path
    column: str
    thousands: bool = False  # may there be signs between thousands? If not, "7.474" is below 8
    percents: bool = False  # may there be percent signs?
    stated: str | None = None  # the decimal sign, if the user names it
    percent: Cell | None = None  # the first cell with a percent sign
    bare: Cell | None = None  # the first cell without one that is not 0
    _only: dict[str, Cell] = field(default_factory=dict)  # by sign: the first that needs this sign
    _either: Cell | None = None  # the first that is another number with the other sign
    _gaps: dict[str, str] = field(default_factory=dict)  # decimal sign -> sign between thousands
    _typed: "_Typed" = field(default_factory=lambda: _Typed())

    @property
    def possible(self) -> Sequence[str]:
        """The decimal signs that the column may have, as far as it has been read."""
        if self.stated is not None:
            return [self.stated]
        return list(self._only) or list(DECIMALS.values())

    def read(self, cells: pd.Series, rows: Ints) -> dict[str, Doubles]:
        """Return the numbers of a batch [n] for each decimal sign that is possible.

        Where the sign makes no difference, all are the same array. A cell without a number is NaN.

        Args:
            cells: [n]
            rows: [n] the rows' numbers, from 0.

        Raises:
            SurveyError: one cell has a decimal point and another one a decimal comma.
        """
        numbers, texts = _split(cells)
        self._typed.add(numbers, rows)
        self._note_bare(numbers, rows)
        if not texts.any():
            return dict.fromkeys(self.possible, numbers)
        written, own_rows = cells[texts], rows[texts]
        if len(written) > FIRST:  # which are likely to tell, so that the rest is read faster
            self._read_texts(written[:FIRST], own_rows[:FIRST])
        if self.possible == ["."] and self.bare is not None:
            plain = pd.to_numeric(written, errors="coerce").to_numpy(np.float64)
            if np.isfinite(plain).all():
                numbers[texts] = plain
                return {".": numbers}
        read = {}
        for sign, own in self._read_texts(written, own_rows).items():
            read[sign] = numbers.copy()
            read[sign][texts] = own
        first = read[self.possible[0]]
        return {
            sign: first if np.array_equal(first, own, equal_nan=True) else own
            for sign, own in read.items()
        }

    def decimal(self) -> str:
        """Return the decimal sign of the column, all of which has been read.

        Raises:
            SurveyError: both are possible and differ, or numbers were read wrongly before.
        """
        if self.thousands and self._typed.suspicious and self.stated != ".":
            raise SurveyError(
                f"{self.file}: the {self.column} {self._typed.fraction} has three decimals where "
                "others are whole numbers, as if dots between thousands had been read as decimal "
                "points: write the whole numbers, or pass --decimal point if it is right"
            )
        if len(self.possible) > 1 and self._either is not None:
            text = self._either.text
            sign, other = (".", ",") if "." in text else (",", ".")
            readings = " or ".join(f"{reading(text, own).number:g}" for own in (sign, other))
            raise SurveyError(
                f"{self.file}: the {self.column} {self._either} may be {readings}, and no other "
                f"cell tells which: pass --decimal {_NAMES[sign]} if {sign!r} is the decimal sign, "
                f"or --decimal {_NAMES[other]} if it stands between thousands"
            )
        return self.possible[0]

    def mixed(self) -> str:
        """Say so if some cells of the column have a percent sign and others none, else ""."""
        if self.percent is None or self.bare is None:
            return ""
        return (
            f"{self.file}: the {self.column} {self.percent} has a percent sign, but {self.bare} "
            "has none: write all with one or all without"
        )

    def notes(self) -> list[str]:
        """Return what was understood of the column, as far as it is unusual."""
        sign = self.decimal()
        notes = ["decimal commas"] if "," in self._only else []
        if sign in self._gaps:
            notes.append(f"{_GAPS[self._gaps[sign]]} between thousands")
        return notes

    def _read_texts(self, cells: pd.Series, rows: Ints) -> dict[str, Doubles]:
        """Return the numbers that are written in `cells` [n], by decimal sign, and learn of it."""
        codes, different = pd.factorize(cells)
        texts = [clean_text(text) for text in different]

        def first(wanted: Bools) -> Cell | None:
            if not wanted.any():
                return None
            code = int(np.argmax(wanted))  # codes are in the order of first appearance
            return Cell(int(rows[np.argmax(codes == code)]) + 1, texts[code])

        readings = {sign: [reading(text, sign) for text in texts] for sign in DECIMALS.values()}
        if not self.thousands:
            for sign, own in readings.items():
                readings[sign] = [Reading() if found.gap else found for found in own]
        point, comma = (
            np.array([found.number for found in readings[sign]], np.float64) for sign in ".,"
        )
        for sign, needed in (
            (".", np.isnan(comma) & ~np.isnan(point)),
            (",", np.isnan(point) & ~np.isnan(comma)),
        ):
            if cell := first(needed):
                self._only.setdefault(sign, cell)
        self._refuse_both_signs()
        self._either = self._either or first((point != comma) & ~np.isnan(point + comma))
        numbers = {".": point, ",": comma}
        used = readings[self.possible[0]]
        percent = np.array([found.percent for found in used], bool)
        self.percent = self.percent or first(percent)
        if self.percent and not self.percents:
            raise SurveyError(
                f"{self.file}: the {self.column} {self.percent} is a percentage: percentages "
                "belong in a column 'share'"
            )
        self.bare = self.bare or first(~percent & (np.nan_to_num(numbers[self.possible[0]]) != 0))
        for sign in self.possible:
            gap = next((found.gap for found in readings[sign] if found.gap), None)
            if gap is not None:
                self._gaps[sign] = gap
        return {sign: numbers[sign][codes] for sign in self.possible}

    def _refuse_both_signs(self) -> None:
        for sign, cell in self._only.items():
            if self.stated not in (None, sign):
                raise SurveyError(
                    f"{self.file}: the {self.column} {cell} has a decimal {_NAMES[sign]}, not a "
                    f"{_NAMES[str(self.stated)]} as --decimal says"
                )
        if len(self._only) > 1:
            raise SurveyError(
                f"{self.file}: the {self.column} {self._only['.']} has a decimal point, but "
                f"{self._only[',']} a decimal comma: write all numbers alike"
            )

    def _note_bare(self, numbers: Doubles, rows: Ints) -> None:
        if self.bare is None and (other := np.flatnonzero(np.nan_to_num(numbers))).size:
            self.bare = Cell(int(rows[other[0]]) + 1, f"{numbers[other[0]]:g}")


@dataclass
class _Typed:
    """Numbers that a file holds as such, among which thousands may have become fractions."""

    fraction: Cell | None = None  # the first
    _whole: bool = False
    _fractions: int = 0
    _thousandths: int = 0  # of the fractions, with exactly three decimals
    _refuted: bool = False

    @property
    def suspicious(self) -> bool:
        """Whether all numbers look as if dots between thousands had been read as decimal points.

        Zeros at the end are lost, so that one in ten fractions has fewer than three decimals.
        """
        return self._whole and not self._refuted and self._fractions < 2 * self._thousandths

    def add(self, numbers: Doubles, rows: Ints) -> None:
        if self._refuted:
            return
        known = np.isfinite(numbers) & (numbers != 0)
        numbers, rows = numbers[known], rows[known]
        whole = numbers == np.rint(numbers)
        fractions = numbers[~whole]
        self._refuted = bool(
            (numbers[whole] >= 1000).any()
            or ((fractions < 1) | (fractions >= 1000) | ~_has_decimals(fractions, 3)).any()
        )
        self._whole = self._whole or bool(whole.any())
        self._fractions += len(fractions)
        self._thousandths += int((~_has_decimals(fractions, 2)).sum())
        if self.fraction is None and len(fractions):
            self.fraction = Cell(int(rows[~whole][0]) + 1, f"{fractions[0]:g}")


def _has_decimals(numbers: Doubles, most: int) -> Bools:
    """Whether each number has at most so many decimals, up to rounding."""
    scaled = numbers * 10**most
    close: Bools = np.abs(scaled - np.rint(scaled)) < 1e-6
    return close


def _split(cells: pd.Series) -> tuple[Doubles, Bools]:
    """Return the numbers among the cells [n], NaN for others, and which cells are texts."""
    if pd.api.types.is_bool_dtype(cells.dtype):
        return np.full(len(cells), nan), np.zeros(len(cells), bool)
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.to_numpy(np.float64, na_value=nan), np.zeros(len(cells), bool)
    if isinstance(cells.dtype, pd.StringDtype):
        return np.full(len(cells), nan), cells.notna().to_numpy()
    if {*map(type, cells)} == {float}:
        return cells.to_numpy(np.float64), np.zeros(len(cells), bool)
    texts = np.fromiter((isinstance(cell, str) for cell in cells), bool, len(cells))
    if texts.all():
        return np.full(len(cells), nan), texts
    return np.fromiter(map(_float, cells), np.float64, len(cells)), texts


def _float(cell: object) -> float:
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal | np.number):
        return nan
    try:
        return float(cell)
    except OverflowError:
        return inf
