"""Tables in workbooks of Excel (.xlsx): the first sheet that has the columns.

What formulas last gave is read, not the formulas. A cell that shows 43 % holds 0.43.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import pandas as pd

from pluralllm_app.core.parts import need
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.header_rows import MOST_ABOVE, Header, find_header, known
from pluralllm_app.survey.sources.unpacking import is_gzip, open_binary

MOST_BYTES = 2**28  # of a workbook, unpacked
Row = tuple[Any, ...]
Columns = Callable[[Sequence[str]], Mapping[str, int]]


def read_workbook(
    file: Path,
    required: Sequence[str],
    names: Sequence[str],
    columns: Columns,
    notes: list[str],
    batch: int,
) -> Iterator[pd.DataFrame]:
    """Yield frames of at most `batch` rows.

    Args:
        file: the workbook.
        required: columns that the sheet has to have.
        names: names of columns by which a header is known.
        columns: returns the places of the columns to read among the names of all.
        notes: where to add which sheet it is, if there are several.
        batch: rows.

    Raises:
        MissingPartError: openpyxl is not installed.
        ValueError: it is no workbook, is damaged, or too large.
        SurveyError: a column is missing.
    """
    need("microdata", f"reading {file.name}")
    from openpyxl import load_workbook

    try:
        with _opened(file) as stream:
            _refuse_large(stream)
            book = load_workbook(stream, read_only=True, data_only=True)
            if not book.worksheets:  # but charts
                return
            sheets = [own for own in book.worksheets if own.sheet_state == "visible"]
            sheet, header = _sheet(sheets or book.worksheets, required, names, notes)
            if header.names:
                for frame in _frames(sheet, header, columns, notes, batch):
                    if empty := [str(name) for name in frame if frame[name].isna().all()]:
                        stream.seek(0)
                        formulas = load_workbook(stream, read_only=True)[sheet.title]
                        _refuse_formulas(next(_frames(formulas, header, columns, [], batch)), empty)
                    yield frame
    except (SurveyError, _Refused, Warning):
        raise
    except Exception as error:  # openpyxl takes for granted what a damaged workbook lacks
        raise ValueError(f"the workbook is damaged ({error}): save it again") from error


def _opened(file: Path) -> BinaryIO:
    if not is_gzip(file):
        return file.open("rb")
    with open_binary(file) as stream:
        return io.BytesIO(stream.read(MOST_BYTES))


class _Refused(ValueError):
    """A workbook that is not read, though it is whole."""


def _refuse_large(stream: BinaryIO) -> None:
    with ZipFile(stream) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > MOST_BYTES:
        raise _Refused(
            f"it unpacks to {size / 2**20:,.0f} MiB, more than {MOST_BYTES / 2**20:,.0f}: save the "
            "table as CSV"
        )
    stream.seek(0)


def _sheet(
    sheets: Sequence[Any], required: Sequence[str], names: Sequence[str], notes: list[str]
) -> tuple[Any, Header]:
    """Return the first sheet with the columns, or else with any, and its header."""
    headers = [find_header(_first(sheet), names) for sheet in sheets]
    fitting = [at for at, own in enumerate(headers) if known(own.names, required) == len(required)]
    at = next((at for at in [*fitting, *range(len(sheets))] if headers[at].names), 0)
    if len(sheets) > 1:
        notes.append(f"sheet {sheets[at].title!r} of {len(sheets)}")
    return sheets[at], headers[at]


def _frames(
    sheet: Any, header: Header, columns: Columns, notes: list[str], batch: int
) -> Iterator[pd.DataFrame]:
    found = columns(header.names)
    notes += header.notes()
    rows = islice(_rows(sheet), header.above, None)
    while part := list(islice(rows, batch)):
        yield pd.DataFrame(
            {
                name: pd.Series([row[at] if at < len(row) else None for row in part], dtype=object)
                for name, at in found.items()
            }
        )


def _refuse_formulas(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse columns whose formulas no program has computed: their cells are empty."""
    for name in names:
        if any(isinstance(cell, str) and cell.startswith("=") for cell in frame[name]):
            raise _Refused(
                f"its column {name!r} has formulas without results: open it in a spreadsheet and "
                "save it there"
            )


def _first(sheet: Any) -> Iterator[Header]:
    """Yield the first rows that are not blank, each as if it were the header."""
    for number, row in enumerate(islice(_rows(sheet), MOST_ABOVE), 1):
        names = ["" if cell is None else str(cell) for cell in row]
        while names and not names[-1].strip():
            names.pop()
        if names:
            yield Header(number, names)


def _rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # which some programs write wrongly
    yield from sheet.iter_rows(values_only=True)
