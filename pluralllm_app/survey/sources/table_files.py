"""Reading tables from files of several kinds in batches of rows.

Rows are counted from 1, without a header and with blank rows, in every kind of file: row 1 of a CSV
file is the one below its header, and row 7 of a .jsonl file is its line 7.
"""

import csv
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from gzip import BadGzipFile
from itertools import chain, islice
from pathlib import Path
from textwrap import shorten

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import ColumnError, SurveyError
from pluralllm_app.survey.sources.file_kinds import START, refuse_other_kinds
from pluralllm_app.survey.sources.header_rows import SEPARATORS, find_text_header, places_of
from pluralllm_app.survey.sources.json_lines import json_object
from pluralllm_app.survey.sources.library_warnings import without_warnings
from pluralllm_app.survey.sources.parquet_columns import check_size, decoded
from pluralllm_app.survey.sources.regular_text import is_regular, read_regular
from pluralllm_app.survey.sources.text_files import encoding_of, open_text
from pluralllm_app.survey.sources.unpacking import is_gzip, open_binary
from pluralllm_app.survey.sources.workbooks import read_workbook

BATCH = 2**17  # rows
AMOUNTS = ("share", "count")  # the columns of which a table has one


@dataclass
class TableReader:
    """Reads the columns of a table: .csv, .tsv, .txt, .parquet, .jsonl or .xlsx, gzip or not.

    Names of columns are found whatever spaces surround them and however they are capitalised. Cells
    of separated text are texts; other cells have the types of the file.
    """

    file: Path
    required: Sequence[str]  # columns that must be there
    optional: Sequence[str] | None = ()  # columns that are read if they are there; None: all
    repeating: Sequence[str] = ()  # columns whose texts repeat often; they may come as categories
    encoding: str | None = None  # of text, if the user states it
    of_several: bool = False  # whether `encoding` is said of several files, of which this is one
    usual: Sequence[str] = ()  # names by which a header is known, where all columns are read
    notes: list[str] = field(default_factory=list)  # what was found out about the file
    names: Sequence[str] = ()  # of all its columns
    twice: Sequence[str] = ()  # of those that several have; where all are wanted, none of them is

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Yield frames of at most BATCH rows, whose index is the number of the row, less 1.

        Raises:
            SurveyError: the file is missing, of another kind, damaged, has no rows or lacks a
                column.
        """
        file = self.file
        if file.is_dir():
            raise SurveyError(f"{file} is a directory: name the table itself")
        ending = Path(bare_name(file)).suffix.lower()
        if ending not in _READERS:
            known = ", ".join(_READERS)
            raise SurveyError(
                f"{file} has the ending {ending!r}: known are {known}, each also with .gz"
            )
        if not file.is_file():
            raise SurveyError(f"{file} is not a file: check its path")
        rows = 0
        try:
            with open_binary(file) as stream:
                start = stream.read(START)
            refuse_other_kinds(start, ending)
            for frame in without_warnings(_READERS[ending](self) if start else ()):
                frame.index = pd.RangeIndex(rows, rows + len(frame))
                rows += len(frame)
                yield frame
        except UnicodeDecodeError as error:
            raise SurveyError(
                f"{file} has bytes that are no text in its encoding ({error}): pass another "
                "--encoding, or save it as UTF-8"
            ) from error
        except (BadGzipFile, EOFError, zlib.error) as error:
            raise SurveyError(
                f"cannot read {file}: what gzip compressed is cut off or damaged ({error}): copy "
                "the file again"
            ) from error
        except pa.ArrowInvalid as error:
            raise SurveyError(
                f"cannot read {file}, it may be cut off or damaged: {str(error).strip()}"
            ) from error
        except (OSError, ValueError) as error:
            raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error
        if not rows:
            raise SurveyError(f"{file} has no rows")

    @property
    def known(self) -> Sequence[str]:
        """Names of columns by which the header is known."""
        return [*self.required, *(self.usual if self.optional is None else self.optional)]

    def columns(self, names: Sequence[str]) -> dict[str, int]:
        """Return the place of each column among `names`, as the file has them.

        Raises:
            SurveyError: a required column is missing, or a column is there twice.
        """
        self.names = names
        found = {}
        if self.optional is None:
            found = self._every(names)
        for column in (*self.required, *(self.optional or ())):
            places = places_of(column, names)
            if len(places) > 1:
                shown = " and ".join(dict.fromkeys(repr(names[place]) for place in places))
                raise SurveyError(f"{self.file} has two columns {shown}: remove one")
            if places:
                found[column] = places[0]
            elif column in self.required:
                raise ColumnError(
                    f"{self.file} has no column {column!r}; found: {shown_names(names)}", names
                )
        return found

    def refuse_twice(self) -> None:
        """Raise SurveyError where all columns were wanted, and two have one name."""
        if self.twice:
            raise SurveyError(f"{self.file} has two columns {self.twice[0]!r}: remove one")

    def _every(self, names: Sequence[str]) -> dict[str, int]:
        """Return the places of all columns but `twice`; spaces are the names of those without."""
        clean = [clean_text(name) for name in names]
        times = Counter(name.casefold() for name in clean)
        several = [name for name in clean if name and times[name.casefold()] > 1]
        self.twice = list({name.casefold(): name for name in reversed(several)}.values())
        return {
            name or " " * (place + 1): place
            for place, name in enumerate(clean)
            if name not in several
        }


def bare_name(file: Path) -> str:
    """Return the name of a file without the ending .gz."""
    return file.stem if file.suffix.lower() == ".gz" else file.name


def shown_names(names: Sequence[str]) -> str:
    """Return the names of the first columns, for a message."""
    shown = [shorten(clean_text(name), 60) for name in names]
    rest = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"{', '.join(shown[:12])}{rest}"


def _encoding(reader: TableReader) -> str:
    return encoding_of(reader.file, reader.encoding, reader.notes, of_several=reader.of_several)


def _separated(reader: TableReader) -> Iterator[pd.DataFrame]:
    encoding = _encoding(reader)
    with open_text(reader.file, encoding) as lines:
        header = find_text_header(lines, reader.known)
    separator, above, width = header.separator, header.above, len(header.names)
    found = reader.columns(header.names)
    reader.notes += header.notes()
    if separator != ",":
        reader.notes.append(SEPARATORS.get(separator, f"columns separated by {separator!r}"))
    with open_text(reader.file, encoding) as lines:
        if encoding.startswith("utf-8") and is_regular(reader.file, separator, above, width):
            frames = read_regular(reader.file, separator, above, width, found, reader.repeating)
        else:
            frames = _separated_rows(islice(lines, above, None), separator, width, found)
        for frame in frames:
            for start in range(0, len(frame), BATCH):
                yield frame[start : start + BATCH]


def _separated_rows(
    lines: Iterable[str], separator: str, width: int, found: Mapping[str, int]
) -> Iterator[pd.DataFrame]:
    records = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    done = 0
    while True:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(records, BATCH))
        except csv.Error as error:
            raise ValueError(
                f"data row {done + len(rows) + 1}: {error}; is a quotation mark left open or too "
                "much, or has it a backslash before it where it should be doubled?"
            ) from error
        if not rows:
            return
        if {*map(len, rows)} != {width}:
            amounts = [at for name, at in found.items() if name in AMOUNTS]
            if separator == ",":
                _refuse_halves(rows, width, done, amounts)
            for number, row in enumerate(rows, done + 1):
                _widen(row, width, number, amounts)
        yield pd.DataFrame(
            {name: pd.Series([row[at] for row in rows], dtype=object) for name, at in found.items()}
        )
        done += len(rows)


def _refuse_halves(
    rows: Sequence[Sequence[str]], width: int, done: int, amounts: Sequence[int]
) -> None:
    """Refuse 12,5 before columns that other rows leave out: it may be one number or two."""
    for at in amounts:
        short = next((number for number, row in enumerate(rows, 1) if len(row) == at + 1), None)
        if at + 1 == width or short is None:
            continue
        for number, row in enumerate(rows, 1):
            halves = [cell.strip() for cell in row[at : at + 2]]
            if len(halves) == 2 and all(map(str.isdigit, halves)) and not any(row[at + 2 :]):
                raise ValueError(
                    f"data row {done + number} ends in {row[at]!r} and {row[at + 1]!r}, and data "
                    f"row {done + short} has no such last cell: a number that contains the "
                    "separator of the columns needs quotation marks; write an empty last cell if "
                    "it is no number"
                )


def _widen(row: list[str], width: int, number: int, amounts: Sequence[int]) -> None:
    """Fill up a row that ends early, as a blank one does; refuse one that is too long.

    A row may end in separators that the header lacks, but not if one of the `amounts` and the cell
    after it can be the two halves of a number.
    """
    halved = (all(map(str.isdigit, map(str.strip, row[at : at + 2]))) for at in amounts)
    if any(map(str.strip, row[width:])) or (len(row) > width and any(halved)):
        raise ValueError(
            f"data row {number} has {len(row)} cells but the header has {width}: a text or number "
            "that contains the separator of the columns needs quotation marks, and a title or note "
            "has to be removed; row: " + shorten(repr(row), 200)
        )
    row.extend([""] * (width - len(row)))


def _parquet(reader: TableReader) -> Iterator[pd.DataFrame]:
    source: Path | io.BytesIO = reader.file
    if is_gzip(reader.file):  # Parquet is read from its end, so all of it has to be unpacked
        with open_binary(reader.file) as stream:
            source = io.BytesIO(stream.read())
    schema = pq.read_schema(source)
    found = reader.columns(schema.names)
    raw = {schema.names[at]: name for name, at in found.items()}
    if len(raw) < len(found):
        raise ValueError("several columns have no name: name or remove them")
    check_size(source, raw, BATCH)
    texts = [own for own, name in raw.items() if name in reader.repeating]
    texts = [own for own in texts if pa.types.is_string(schema.field(own).type)]
    done = 0
    with pq.ParquetFile(source, read_dictionary=texts) as table:
        for batch in table.iter_batches(BATCH, columns=list(raw)):
            columns = {name: decoded(batch.column(own), own, done) for own, name in raw.items()}
            # Whole numbers with gaps would become floats, of 15 digits.
            yield pa.table(columns).to_pandas(integer_object_nulls=True)
            done += batch.num_rows


def _jsonl(reader: TableReader) -> Iterator[pd.DataFrame]:
    encoding = _encoding(reader)
    known: dict[str, None] = {}
    done = 0
    with open_text(reader.file, encoding) as lines:
        objects = (json_object(line, number) for number, line in enumerate(lines, 1))
        while rows := list(islice(objects, BATCH)):
            known |= dict.fromkeys(chain.from_iterable(rows))
            if not known:
                raise SurveyError(f"{reader.file} has no rows")
            names = list(known)
            first = {clean_text(name).casefold(): name for name in reversed(names)}
            spelled = [name for name in names if name in first.values()]
            wanted = {spelled[at] for at in reader.columns(spelled).values()}
            for number, row in enumerate(rows, done + 1):
                if row and wanted.isdisjoint(row):
                    raise ValueError(
                        f"data row {number} has none of the columns {', '.join(sorted(wanted))}: "
                        f"it has {shown_names(list(row))}"
                    )
            columns = reader.columns(names)  # each in one spelling
            done += len(rows)
            yield pd.DataFrame(
                {
                    # As objects: in one column of numbers, 1 would become 1.0 beside 2.5.
                    name: pd.Series([row.get(names[at]) for row in rows], dtype=object)
                    for name, at in columns.items()
                }
            )


def _workbook(reader: TableReader) -> Iterator[pd.DataFrame]:
    return read_workbook(
        reader.file, reader.required, reader.known, reader.columns, reader.notes, BATCH
    )


_READERS: dict[str, Callable[[TableReader], Iterator[pd.DataFrame]]] = {
    ".csv": _separated,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".tsv": _separated,
    ".txt": _separated,
    ".xlsx": _workbook,
}
