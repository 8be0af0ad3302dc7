"""Tables in workbooks of Excel (.xlsx): the first sheet that has the columns.

What formulas last gave is read, not the formulas. A cell that shows 43 % holds 0.43. Rows above the
header may be blank or have a single cell, as a title has.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import pandas as pd

from pluralllm_app.core.parts import need
from pluralllm_app.survey.sources.unpacking import is_gzip, open_binary

if TYPE_CHECKING:
    from pluralllm_app.survey.sources.table_files import TableReader

MOST_BYTES = 2**29  # of a workbook, unpacked
Row = tuple[Any, ...]


def read_workbook(reader: "TableReader", batch: int) -> Iterator[pd.DataFrame]:
    """Yield frames of at most `batch` rows.

    Raises:
        MissingPartError: openpyxl is not installed.
        ValueError: it is no workbook, is damaged, or too large.
        SurveyError: a column is missing.
    """
    need("microdata", f"reading {reader.file.name}")
    from openpyxl import load_workbook

    try:
        with _opened(reader.file) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles that openpyxl does not know
            _refuse_large(stream)
            book = load_workbook(stream, read_only=True, data_only=True)
            yield from _frames(reader, book.worksheets, batch)
    except (BadZipFile, KeyError, IndexError, TypeError, AttributeError, SyntaxError) as error:
        # openpyxl takes for granted what a damaged workbook lacks; XML's errors are SyntaxErrors.
        raise ValueError(f"the workbook is damaged ({error}): save it again") from error


def _opened(file: Path) -> BinaryIO:
    if not is_gzip(file):
        return file.open("rb")
    with open_binary(file) as stream:
        return io.BytesIO(stream.read(MOST_BYTES))


def _refuse_large(stream: BinaryIO) -> None:
    with ZipFile(stream) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > MOST_BYTES:
        raise ValueError(
            f"it unpacks to {size / 2**20:,.0f} MiB, more than {MOST_BYTES / 2**20:,.0f}: save the "
            "table as CSV"
        )
    stream.seek(0)


def _frames(reader: "TableReader", sheets: Sequence[Any], batch: int) -> Iterator[pd.DataFrame]:
    chosen = next((sheet for sheet in sheets if _fits(reader, _header(sheet)[1])), None)
    chosen = chosen or next((sheet for sheet in sheets if _header(sheet)[1]), None)
    if chosen is None:
        return
    if len(sheets) > 1:
        reader.notes.append(f"sheet {chosen.title!r} of {len(sheets)}")
    above, header = _header(chosen)
    found = reader.columns(header)
    rows = islice(_rows(chosen), above, None)
    while part := list(islice(rows, batch)):
        yield pd.DataFrame(
            {
                name: pd.Series([row[at] if at < len(row) else None for row in part], dtype=object)
                for name, at in found.items()
            }
        )


def _fits(reader: "TableReader", header: Sequence[str]) -> bool:
    known = {name.strip().casefold() for name in header}
    return bool(header) and all(name.casefold() in known for name in reader.required)


def _header(sheet: Any) -> tuple[int, list[str]]:
    """Return the number of rows up to the header, and the names in it; none in an empty sheet."""
    for number, row in enumerate(_rows(sheet), 1):
        names = ["" if cell is None else str(cell) for cell in row]
        while names and not names[-1].strip():
            names.pop()
        if sum(bool(name.strip()) for name in names) > 1:
            return number, names
    return 0, []


def _rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # which some programs write wrongly
    yield from sheet.iter_rows(values_only=True)
