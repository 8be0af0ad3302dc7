"""Columns of Parquet files as numbers and texts that say what people wrote."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
