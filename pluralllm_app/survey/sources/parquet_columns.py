"""Columns of Parquet files as numbers and texts that say what people wrote."""

import io
from collections.abc import Collection
from contextlib import closing
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pluralllm_app.survey.parquet_pages import unpacked

MOST_VALUES = 10**8  # of a column
MOST_BATCH = 2**31  # bytes of a column's texts that are read at once


def check_size(source: Path | io.BytesIO, columns: Collection[str], batch: int) -> None:
    """Raise ValueError where columns of a Parquet file would become too large in memory.

    Args:
        source: the file.
        columns: their names.
        batch: how many rows are read at once.
    """
    metadata = pq.read_metadata(source)
    if isinstance(source, io.BytesIO):
        with source.getbuffer() as data:
            return _check_size(data, metadata, columns, batch)
    with source.open("rb") as stream, closing(mmap(stream.fileno(), 0, access=ACCESS_READ)) as data:
        _check_size(data, metadata, columns, batch)


def _check_size(
    data: memoryview | mmap, metadata: pq.FileMetaData, columns: Collection[str], batch: int
) -> None:
    count: dict[str, int] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            path = chunk.path_in_schema
            if path not in columns and path.partition(".")[0] not in columns:
                continue
            try:
                found = unpacked(data, chunk, MOST_VALUES)
            except ValueError as error:
                raise ValueError(f"column {path!r} {error}") from error
            count[path] = count.get(path, 0) + found.values
            if max(count[path], metadata.num_rows) > MOST_VALUES:
                raise ValueError(f"column {path!r} has more than {MOST_VALUES:,} values")
            size = found.size + min(found.values, batch) * found.longest
            if size > MOST_BATCH:
                raise ValueError(
                    f"column {path!r} would become up to {size:,} bytes, and {MOST_BATCH:,} are "
                    f"read at once: its longest text has {found.longest:,} bytes"
                )


def decoded(column: pa.Array, name: str, done: int) -> pa.Array:
    """Return a column with texts where it has bytes, and 1.1 where it has the nearest float32.

    Args:
        column: [n]
        name: of the column.
        done: how many rows of the file come before.

    Raises:
        ValueError: bytes are no text in UTF-8.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) and _is_recoded(kind.value_type):
        column = column.dictionary_decode()
    if pa.types.is_float16(column.type) or pa.types.is_float32(column.type):
        # As a float64, float32's 1.1 is 1.10000002384: what people wrote is its shortest text.
        short = column.to_numpy(zero_copy_only=False).astype(str).astype(np.float64)
        return pa.array(short, from_pandas=True)
    if not _is_recoded(column.type):
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


def _is_recoded(kind: pa.DataType) -> bool:
    types = pa.types
    small = types.is_float16(kind) or types.is_float32(kind)
    return bool(small or types.is_binary(kind) or types.is_large_binary(kind))
