"""Reading tables from files of several kinds in batches of rows.

Rows are counted from 1, without a header and with blank rows, in every kind of file: row 1 of a CSV
file is the one below its header, and row 7 of a .jsonl file is its line 7.
"""

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from textwrap import shorten
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.regular_text import is_regular, read_regular
from pluralllm_app.survey.sources.text_files import encoding_of, open_text
from pluralllm_app.survey.sources.unpacking import is_gzip, open_binary

BATCH = 2**17  # rows
AMOUNTS = ("share", "count")  # the columns of which a table has one
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_decode = msgspec.json.Decoder().decode
_STATED_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')  # a first line with which Excel is told


@dataclass
class TableReader:
    """Reads the columns of a table from a .csv, .tsv, .txt, .parquet or .jsonl file, gzip or not.

    Names of columns are found whatever spaces surround them and however they are capitalised. Cells
    of separated text are texts; other cells have the types of the file.
    """

    file: Path
    required: Sequence[str]  # columns that must be there
    optional: Sequence[str] | None = ()  # columns that are read if they are there; None: all
    repeating: Sequence[str] = ()  # columns whose texts repeat often; they may come as categories
    encoding: str | None = None  # of text, if the user states it
    of_several: bool = False  # whether `encoding` is said of several files, of which this is one
    notes: list[str] = field(default_factory=list)  # what was found out about the file
    names: Sequence[str] = ()  # of all its columns

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
                start = stream.read(4)
            _refuse_other_kinds(start, ending)
            for frame in _READERS[ending](self) if start else ():
                frame.index = pd.RangeIndex(rows, rows + len(frame))
                rows += len(frame)
                yield frame
        except UnicodeDecodeError as error:
            raise SurveyError(
                f"{file} has bytes that are no text in its encoding ({error}): pass another "
                "--encoding, or save it as UTF-8"
            ) from error
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error
        if not rows:
            raise SurveyError(f"{file} has no rows")

    def columns(self, names: Sequence[str]) -> dict[str, int]:
        """Return the place of each column among `names`, as the file has them.

        Raises:
            SurveyError: a required column is missing, or a column is there twice.
        """
        self.names = names
        found = {}
        if self.optional is None:
            found = {clean_text(name): place for place, name in enumerate(names)}
        for column in (*self.required, *(self.optional or ())):
            places = places_of(column, names)
            if len(places) > 1:
                shown = " and ".join(repr(names[place]) for place in places[:2])
                raise SurveyError(f"{self.file} has two columns {column!r}, {shown}: remove one")
            if places:
                found[column] = places[0]
            elif column in self.required:
                raise SurveyError(
                    f"{self.file} has no column {column!r}; found: {shown_names(names)}"
                )
        return found


def bare_name(file: Path) -> str:
    """Return the name of a file without the ending .gz."""
    return file.stem if file.suffix.lower() == ".gz" else file.name


def places_of(column: str, names: Sequence[str]) -> list[int]:
    """Return where `column` is among `names`, or else where it is with other capitals."""
    cleaned = [clean_text(name) for name in names]
    exact = [place for place, name in enumerate(cleaned) if name == column]
    return exact or [place for place, name in enumerate(cleaned) if name.casefold() == column]


def shown_names(names: Sequence[str]) -> str:
    """Return the names of the first columns, for a message."""
    shown = [shorten(clean_text(name), 60) for name in names]
    rest = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"{', '.join(shown[:12])}{rest}"


def _refuse_other_kinds(start: bytes, ending: str) -> None:
    """Raise ValueError if the first 4 bytes are those of another kind of file than the ending's."""
    if start == b"PK\x03\x04":
        raise ValueError("it is an Excel workbook or another zip archive: save the table as CSV")
    if ending != ".parquet" and start == b"PAR1":
        raise ValueError("it is a Parquet file: give its name the ending .parquet")


def _encoding(reader: TableReader) -> str:
    return encoding_of(reader.file, reader.encoding, reader.notes, of_several=reader.of_several)


def _separated(reader: TableReader) -> Iterator[pd.DataFrame]:
    encoding = _encoding(reader)
    with open_text(reader.file, encoding) as lines:
        above, first = _line_with_text(lines)
        stated = _STATED_SEPARATOR.fullmatch(first)
        if stated:
            more, first = _line_with_text(lines)
            above += more
        separators = [stated[1]] if stated else list(SEPARATORS)
        headers = {
            separator: next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
            for separator in separators
        }
        separator = max(
            headers,
            key=lambda own: (
                sum(bool(places_of(name, headers[own])) for name in reader.required),
                len(headers[own]),
            ),
        )
        width = len(headers[separator])
        found = reader.columns(headers[separator])
        if separator != ",":
            reader.notes.append(SEPARATORS.get(separator, f"columns separated by {separator!r}"))
        if encoding.startswith("utf-8") and is_regular(reader.file, separator, above, width):
            frames = read_regular(reader.file, separator, above, width, found, reader.repeating)
        else:
            frames = _separated_rows(lines, separator, width, found)
        for frame in frames:
            for start in range(0, len(frame), BATCH):
                yield frame[start : start + BATCH]


def _line_with_text(lines: io.TextIOWrapper) -> tuple[int, str]:
    """Return the next line with more than spaces and separators, "" at the end, and its number."""
    for number, line in enumerate(lines, 1):
        if line.strip('\ufeff\r\n\t ,;|"'):
            return number, line.removeprefix("\ufeff")
    return 0, ""


def _separated_rows(
    lines: io.TextIOWrapper, separator: str, width: int, found: Mapping[str, int]
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
                "much?"
            ) from error
        if not rows:
            return
        if {*map(len, rows)} != {width}:
            amounts = [at for name, at in found.items() if name in AMOUNTS]
            for number, row in enumerate(rows, done + 1):
                _widen(row, width, number, amounts)
        yield pd.DataFrame(
            {name: pd.Series([row[at] for row in rows], dtype=object) for name, at in found.items()}
        )
        done += len(rows)


def _widen(row: list[str], width: int, number: int, amounts: Sequence[int]) -> None:
    """Fill up a row that ends early, as a blank one does; refuse one that is too long.

    A row may end in separators that the header lacks, but not if one of the `amounts` and the cell
    after it can be the two halves of a number.
    """
    halved = (all(map(str.isdigit, map(str.strip, row[at : at + 2]))) for at in amounts)
    if any(map(str.strip, row[width:])) or (len(row) > width and any(halved)):
        raise ValueError(
            f"data row {number} has {len(row)} cells but the header has {width}: a text or number "
            "that contains the separator of the columns needs quotation marks; row: "
            + shorten(repr(row), 200)
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
    texts = [own for own, name in raw.items() if name in reader.repeating]
    texts = [own for own in texts if pa.types.is_string(schema.field(own).type)]
    done = 0
    with pq.ParquetFile(source, read_dictionary=texts) as table:
        for batch in table.iter_batches(BATCH, columns=list(raw)):
            columns = {name: _decoded(batch.column(own), own, done) for own, name in raw.items()}
            # Whole numbers with gaps would become floats, of 15 digits.
            yield pa.table(columns).to_pandas(integer_object_nulls=True)
            done += batch.num_rows


def _decoded(column: pa.Array, name: str, done: int) -> pa.Array:
    """Return a column with texts where it has bytes."""
    kind = column.type
    if pa.types.is_dictionary(kind) and pa.types.is_binary(kind.value_type):
        column = column.dictionary_decode()
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return column
    try:
        return pc.cast(column, pa.large_string())
    except pa.ArrowInvalid:
        for row, cell in enumerate(column.to_pylist(), done + 1):
            try:
                (cell or b"").decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"data row {row} has bytes in column {name!r} that are no text in UTF-8: "
                    f"{cell[:40]!r}"
                ) from error
        raise


def _jsonl(reader: TableReader) -> Iterator[pd.DataFrame]:
    encoding = _encoding(reader)
    known: dict[str, None] = {}
    done = 0
    with open_text(reader.file, encoding) as lines:
        objects = (_json_object(line, number) for number, line in enumerate(lines, 1))
        while rows := list(islice(objects, BATCH)):
            known |= dict.fromkeys(chain.from_iterable(rows))
            if not known:
                raise SurveyError(f"{reader.file} has no rows")
            names = list(known)
            columns = reader.columns(names)
            wanted = {names[at] for at in columns.values()}
            for number, row in enumerate(rows, done + 1):
                if row and wanted.isdisjoint(row):
                    raise ValueError(
                        f"data row {number} has none of the columns {', '.join(sorted(wanted))}: "
                        f"it has {shown_names(list(row))}"
                    )
            done += len(rows)
            yield pd.DataFrame(
                {
                    # As objects: in one column of numbers, 1 would become 1.0 beside 2.5.
                    name: pd.Series([row.get(names[at]) for row in rows], dtype=object)
                    for name, at in columns.items()
                }
            )


def _json_object(line: str, number: int) -> dict[str, Any]:
    line = line.strip("\ufeff\r\n\t ")
    if not line:
        return {}
    try:
        row = _decode(line)  # several times as fast as Python's own, but without NaN
    except (msgspec.DecodeError, RecursionError):
        row = _json_value(line, number)
    if not isinstance(row, dict):
        raise ValueError(
            f"data row {number}, line {number} is no JSON object, but each line must be one: "
            + shorten(repr(line[:200]), 80)
        )
    return row


def _json_value(line: str, number: int) -> Any:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"data row {number}, line {number} has half a character: a surrogate escape without "
            "its other half"
        ) from error
    except (ValueError, RecursionError):
        return None
    return value


_READERS: dict[str, Callable[[TableReader], Iterator[pd.DataFrame]]] = {
    ".csv": _separated,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".tsv": _separated,
    ".txt": _separated,
}
