"""Reading tables from files of several kinds in batches of rows."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pluralllm_app.errors import SurveyError

BATCH = 2**17  # rows


def read_batches(file: Path, repeating: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """Read a .csv (all columns as text, nothing taken for missing), .parquet or .jsonl table.

    Args:
        repeating: columns whose texts repeat often; they may be read as categories.

    Yields:
        Frames of at most BATCH rows.

    Raises:
        SurveyError: the file is missing, of another kind, damaged, or has no rows.
    """
    if file.is_dir():
        raise SurveyError(f"{file} is a directory: name the table itself")
    if file.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise SurveyError(f"{file} has the ending {file.suffix!r}: known are {known}")
    if not file.is_file():
        raise SurveyError(f"{file} is not a file: check its path")
    rows = 0
    frames = _READERS[file.suffix](file, repeating) if file.stat().st_size else iter(())
    while True:
        try:
            frame = next(frames, None)
        except UnicodeDecodeError as error:
            raise SurveyError(f"{file} is not in UTF-8: save it as UTF-8") from error
        except (OSError, ValueError) as error:
            raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error
        if frame is None:
            break
        rows += len(frame)
        yield frame
    if not rows:
        raise SurveyError(f"{file} has no rows")


def _csv(file: Path, _: Sequence[str]) -> Iterator[pd.DataFrame]:
    with pd.read_csv(
        file, dtype=str, keep_default_na=False, encoding="utf-8", chunksize=BATCH
    ) as frames:
        yield from frames


def _parquet(file: Path, repeating: Sequence[str]) -> Iterator[pd.DataFrame]:
    schema = pq.read_schema(file)
    texts = [name for name in repeating if name in schema.names]
    texts = [name for name in texts if pa.types.is_string(schema.field(name).type)]
    with pq.ParquetFile(file, read_dictionary=texts) as table:
        for batch in table.iter_batches(BATCH):
            yield batch.to_pandas()


def _jsonl(file: Path, _: Sequence[str]) -> Iterator[pd.DataFrame]:
    with file.open(encoding="utf-8") as lines:
        rows = (_json_object(line, number) for number, line in enumerate(lines, 1) if line.strip())
        while batch := list(islice(rows, BATCH)):
            yield pd.DataFrame(batch)


def _json_object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no JSON object, but each line must be one")
    if "\\ud" in line.lower():
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"line {number} has half a character: a surrogate escape without its other half"
            ) from error
    return row


_READERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}


def require_columns(file: Path | str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise SurveyError if a column is missing; the message names those found."""
    for column in columns:
        if column not in frame.columns:
            raise SurveyError(f"{file} has no column {column!r}; found: {shown_columns(frame)}")


def shown_columns(frame: pd.DataFrame) -> str:
    """Return the names of the first columns, for a message."""
    names = [shorten(str(name), 60) for name in frame.columns]
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    hint = "" if len(names) > 1 else " (a table's columns must be separated by commas)"
    return f"{', '.join(names[:12])}{rest}{hint}"
