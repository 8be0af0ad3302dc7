"""Strict reading of a survey's Parquet files, which may have come from anybody.

A file of some kilobytes can hold gigabytes: a text that is written once and used by many rows, or
a column that no reader asked for. So the columns of the format alone are read; how many rows and
values they have, and how long their texts are, is known and bounded before they are unpacked.
"""

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.info import PREPARE_AGAIN
from pluralllm_app.survey.parquet_pages import unpacked

MOST_SIZE = 2**29  # bytes that a column can become, each text as long as the longest


def refusal(file: Path, fault: str) -> SurveyError:
    """The error that a survey's file has a fault, with its remedy."""
    # The name alone: a partition's errors reach the server.
    return SurveyError(f"survey file {file.name} {fault}: {PREPARE_AGAIN}")


def missing(file: Path) -> SurveyError:
    """The error that a survey's file is not there, with its remedy."""
    return refusal(file, "is missing: copy it from where the survey was prepared, or")


def read_columns(
    file: Path, schema: pa.Schema, *, nullable: str, rows: int, values: int
) -> pa.Table:
    """Read the columns of `schema`, of which only the one called `nullable` may hold nulls.

    Args:
        file: a Parquet file.
        schema: of the format; other columns of the file are not read.
        nullable: name of a column.
        rows: how many rows the file may have at most.
        values: how many values the lists of a column may have at most, together.

    Raises:
        SurveyError: missing or damaged file, a column that is not there or has another type, nulls,
            or more than there may be.
    """
    try:
        parquet = pq.ParquetFile(file, memory_map=True)
        _check_types(file, parquet.schema_arrow, schema)
        paths = _paths(file, parquet.metadata, schema)
        _check_sizes(file, parquet.metadata, paths, rows, values)
        table = parquet.read(columns=list(paths.values()))
    except FileNotFoundError:
        raise missing(file) from None
    except (OSError, pa.ArrowException) as error:
        raise refusal(file, f"cannot be read ({type(error).__name__})") from error
    for column in schema:
        found = table[column.name]
        empty = found.null_count or (_holds_text(column.type) and _items(found).null_count)
        if empty and column.name != nullable:
            raise refusal(file, f"has nulls in column {column.name!r}")
    return table.select(schema.names).cast(schema.with_metadata(table.schema.metadata))


def numbers(column: pa.ChunkedArray) -> Any:
    """The numbers of a column without nulls.

    pyarrow's own ``to_numpy`` imports pandas, as does whatever takes a number of Python's
    (``pc.less(column, 1)``): that would be a tenth of the work of a client process.
    """
    return np.from_dlpack(column.combine_chunks())


def _check_types(file: Path, found: pa.Schema, schema: pa.Schema) -> None:
    for column in schema:
        places = found.get_all_field_indices(column.name)
        if len(places) != 1:
            fault = f"columns {column.name!r}, {len(places)} of them" if places else ""
            raise refusal(file, f"has {fault or f'no column {column.name!r}'}")
        if not _same_type(found.field(places[0]).type, column.type):
            kind = found.field(places[0]).type
            raise refusal(file, f"has {column.name!r} of type {kind}, not {column.type}")


def _paths(file: Path, metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, str]:
    """The path of the values of each column of `schema`: options.list.element and the like."""
    every = [metadata.schema.column(at).path for at in range(len(metadata.schema))]
    found = {}
    for name in schema.names:
        # Names of columns may have points in them, too, and pyarrow would read all of these.
        paths = [path for path in every if path.partition(".")[0] == name]
        if len(paths) != 1:
            raise refusal(file, f"has {len(paths)} columns that begin with {name!r}")
        found[name] = paths[0]
    return found


def _check_sizes(
    file: Path, metadata: pq.FileMetaData, paths: dict[str, str], rows: int, values: int
) -> None:
    if metadata.num_rows > rows:
        raise refusal(file, f"has {metadata.num_rows:,} rows where there are at most {rows:,}")
    names = {path: name for name, path in paths.items()}
    held, sizes = dict.fromkeys(paths, 0), dict.fromkeys(paths, 0)
    with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for chunk in map(group.column, range(group.num_columns)):
                if name := names.get(chunk.path_in_schema):
                    try:
                        found = unpacked(data, chunk, values)
                    except (ValueError, OSError) as error:
                        raise refusal(file, f"cannot be read: {name!r} {error}") from error
                    held[name] += found.values
                    sizes[name] += found.size + found.values * found.longest
    for name, count in held.items():
        if count > values:
            raise refusal(file, f"has {count:,} values of {name!r}, and at most {values:,} fit")
        if sizes[name] > MOST_SIZE:
            raise refusal(
                file, f"has up to {sizes[name]:,} bytes of {name!r}, and {MOST_SIZE:,} are read"
            )


def _items(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column, those of lists one after the other."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return pc.list_flatten(column) if lists else column


def _holds_text(kind: pa.DataType) -> bool:
    return bool(kind in (pa.string(), pa.list_(pa.string())))


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two types differ at most in the width of offsets: other tools write large strings."""
    if pa.types.is_list(wanted):
        lists = pa.types.is_list(found) or pa.types.is_large_list(found)
        return bool(lists) and _same_type(found.value_type, wanted.value_type)
    if wanted == pa.string():
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    return bool(found == wanted)
