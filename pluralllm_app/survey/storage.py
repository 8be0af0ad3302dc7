"""The tables of a prepared survey: their schemas, and strict reading of each.

Every fault is a SurveyError that names the file and the remedy, and never a share.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from pluralllm_app.core.segments import (
    Doubles,
    Floats,
    Halves,
    Ints,
    segment_rows,
    segment_starts,
    segment_sums,
)
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.info import ORDINAL_METRICS, PREPARE_AGAIN

SUM_TOLERANCE = 1e-3  # how far the shares of a question may be from 1 in total

QUESTIONS_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("text", pa.string()),
        ("options", pa.list_(pa.string())),
        ("values", pa.list_(pa.float64())),
        ("first_row", pa.int64()),
    ]
)
GROUP_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("shares", pa.list_(pa.float64())),
        ("respondents", pa.int64()),
    ]
)


def _refusal(file: Path, fault: str) -> SurveyError:
    # The name alone: a partition's errors reach the server.
    return SurveyError(f"survey file {file.name} {fault}: {PREPARE_AGAIN}")


def _missing(file: Path) -> SurveyError:
    return _refusal(file, "is missing: copy it from where the survey was prepared, or")


def _read_parquet(file: Path, schema: pa.Schema, nullable: str) -> pa.Table:
    """Read the columns of `schema`, of which only the one called `nullable` may hold nulls."""
    try:
        table = pq.ParquetFile(file, memory_map=True).read()
    except FileNotFoundError:
        raise _missing(file) from None
    except (OSError, pa.ArrowException) as error:
        raise _refusal(file, f"cannot be read ({type(error).__name__})") from error
    for column in schema:
        if column.name not in table.column_names:
            raise _refusal(file, f"has no column {column.name!r}")
        if not _same_type(table[column.name].type, column.type):
            found = table[column.name].type
            raise _refusal(file, f"has {column.name!r} of type {found}, not {column.type}")
        if column.name != nullable and table[column.name].null_count:
            raise _refusal(file, f"has nulls in column {column.name!r}")
    return table.select(schema.names).cast(schema)


def numbers(column: pa.ChunkedArray) -> Any:
    """The numbers of a column without nulls.

    pyarrow's own ``to_numpy`` imports pandas, as does whatever takes a number of Python's
    (``pc.less(column, 1)``): that would be a tenth of the work of a client process.
    """
    return np.from_dlpack(column.combine_chunks())


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two types differ at most in the width of offsets: other tools write large strings."""
    if pa.types.is_list(wanted):
        lists = pa.types.is_list(found) or pa.types.is_large_list(found)
        return bool(lists) and _same_type(found.value_type, wanted.value_type)
    if wanted == pa.string():
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    return bool(found == wanted)


def map_embeddings(file: Path, dim: int) -> Halves:
    """Return the embeddings, float16 [rows, dim], mapped: pages are read only as they are used.

    What is written to the array stays in this process.

    Raises:
        SurveyError: missing or damaged file, no tensor `embeddings`, another type or width.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:  # checks header and length of the file
            if "embeddings" not in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                raise _refusal(file, "has no tensor 'embeddings'")
            part = tensors.get_slice("embeddings")
            kind, shape = part.get_dtype(), part.get_shape()
        with file.open("rb") as opened:
            header = opened.read(int.from_bytes(opened.read(8), "little"))
    except FileNotFoundError:
        raise _missing(file) from None
    except (OSError, SafetensorError) as error:
        raise _refusal(file, f"cannot be read ({type(error).__name__})") from error
    if kind != "F16" or len(shape) != 2 or shape[1] != dim:
        raise _refusal(file, f"holds {kind} {shape}, not F16 [rows, {dim}]")
    offset = 8 + len(header) + json.loads(header)["embeddings"]["data_offsets"][0]
    # Torch shares an array with a copy on write silently, but warns of a read-only one.
    return np.asarray(np.memmap(file, np.float16, "c", offset, tuple(shape)))


def read_questions(file: Path, rows: int, metric: str) -> pa.Table:
    """Return questions.parquet, checked against the number of embedding rows and the metric.

    Raises:
        SurveyError: missing or damaged file, duplicate ids, or anything that does not add up.
    """
    table = _read_parquet(file, QUESTIONS_SCHEMA, nullable="values")
    if pc.count_distinct(table["question_id"]).as_py() != table.num_rows:
        raise _refusal(file, "has duplicate question ids")
    counts = numbers(pc.list_value_length(table["options"]))
    if (counts < 2).any():
        raise _refusal(file, "has a question with fewer than two options")
    if not np.array_equal(numbers(table["first_row"]), segment_starts(counts)):
        raise _refusal(file, "numbers its embedding rows wrongly")
    if counts.sum() != rows:
        raise _refusal(file, f"has {counts.sum()} options but there are {rows} embeddings")
    if metric in ORDINAL_METRICS:
        values = pc.list_flatten(table["values"])
        whole = not table["values"].null_count and not values.null_count
        whole = whole and np.array_equal(numbers(pc.list_value_length(table["values"])), counts)
        if not whole or not pc.all(pc.is_finite(values)).as_py():
            raise _refusal(file, f"lacks ordinal values, which metric {metric} needs")
    return table


def read_answers(file: Path, expected: int, ids: pa.Array, options: Ints) -> tuple[Ints, Floats]:
    """Return a group's answers: question indices [Q] ascending, and flat shares float32 [R].

    Args:
        expected: how many questions the group answers according to survey.json.
        ids: the ids of all questions of the survey.
        options: how many options each of these has.

    Raises:
        SurveyError: missing or damaged file, an unknown or repeated question, or bad shares.
    """
    table = _read_parquet(file, GROUP_SCHEMA, nullable="respondents")
    if table.num_rows != expected:
        raise _refusal(file, f"answers {table.num_rows} questions but survey.json says {expected}")
    fewest = pc.min(table["respondents"]).as_py()
    if fewest is not None and fewest < 1:
        raise _refusal(file, "has a number of respondents below 1")
    indices = pc.index_in(table["question_id"], value_set=ids)
    if indices.null_count:
        row = indices.is_null().to_pylist().index(True)
        raise _refusal(file, f"answers a question that questions.parquet lacks (row {row + 1})")
    questions = numbers(indices).astype(np.int64)
    counts = numbers(pc.list_value_length(table["shares"])).astype(np.int64)
    wrong = np.flatnonzero(counts != options[questions])
    if len(wrong):
        row = int(wrong[0])
        raise _refusal(
            file,
            f"gives {counts[row]} shares for a question with {options[questions[row]]} options "
            f"(row {row + 1})",
        )
    order = np.argsort(questions, kind="stable")
    if (np.diff(questions[order]) == 0).any():
        raise _refusal(file, "answers a question twice")
    flat = pc.list_flatten(table["shares"])
    if flat.null_count:
        raise _refusal(file, "has shares that are not finite")
    shares = _normalised(file, numbers(flat), counts)
    starts = segment_starts(counts)
    rows = segment_rows(starts[order], counts[order])
    return questions[order], shares[rows].astype(np.float32)


def _normalised(file: Path, shares: Doubles, counts: Ints) -> Doubles:
    """Rescale the shares of each question to sum to 1, from within SUM_TOLERANCE of it."""
    if not np.isfinite(shares).all():
        raise _refusal(file, "has shares that are not finite")
    if (shares < 0).any():
        raise _refusal(file, "has negative shares")
    sums = segment_sums(shares, counts)
    wrong = int((np.abs(sums - 1) > SUM_TOLERANCE).sum())
    if wrong:
        raise _refusal(file, f"has {wrong} question(s) whose shares do not sum to 1")
    rescaled: Doubles = shares / np.repeat(sums, counts)
    return rescaled
