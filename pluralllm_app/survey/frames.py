"""Tables in files of several kinds, batch by batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from pluralllm_app.errors import SurveyError

BATCH = 2**17  # rows


def read_frames(file: Path, repeating: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """Read a .csv (all columns as text, nothing taken for missing), .parquet or .jsonl table.

    Args:
        repeating: columns of texts that occur often, which may come as categories.

    Yields:
        Frames of at most BATCH rows; where there are none, one or no empty frame.

    Raises:
        SurveyError: missing, of another kind, or damaged.
    """
    if file.is_dir():
        raise SurveyError(f"{file} is a directory: give the table itself as --file")
    if file.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise SurveyError(f"{file} has the ending {file.suffix!r}: known are {known}")
    if not file.is_file():
        raise SurveyError(f"{file} is not a file: check --file")
    frames = _READERS[file.suffix](file, repeating)
    while True:
        try:
            frame = next(frames, None)
        except (OSError, ValueError) as error:
            raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error
        if frame is None:
            return
        yield frame


def _csv(file: Path, _: Sequence[str]) -> Iterator[pd.DataFrame]:
    with pd.read_csv(
        file, dtype=str, keep_default_na=False, encoding="utf-8", chunksize=BATCH
    ) as frames:
        yield from frames


def _parquet(file: Path, repeating: Sequence[str]) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(file, read_dictionary=list(repeating)) as table:
        yield table.schema_arrow.empty_table().to_pandas()
        for batch in table.iter_batches(BATCH):
            yield batch.to_pandas()


def _jsonl(file: Path, _: Sequence[str]) -> Iterator[pd.DataFrame]:
    with pd.read_json(file, lines=True, dtype=False, chunksize=BATCH) as frames:
        yield from frames


_READERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}


def require_columns(file: Path | str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise SurveyError if a column is missing, with those found."""
    for column in columns:
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            raise SurveyError(f"{file} has no column {column!r}; found: {found}")
