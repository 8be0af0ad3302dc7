"""The tables of a prepared survey: how each is made, and strict reading of it.

Every fault is a SurveyError that names the file and the remedy, and never a share.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from pluralllm_app.core.json_text import parse_json
from pluralllm_app.core.segments import (
    Doubles,
    Floats,
    Halves,
    Ints,
    segment_rows,
    segment_starts,
    segment_sums,
)
from pluralllm_app.core.wording import many
from pluralllm_app.survey.content import Answers, Description, Influence, Questions
from pluralllm_app.survey.info import ORDINAL_METRICS
from pluralllm_app.survey.parquet_files import missing, numbers, read_columns, refusal

_AT_ONCE = 2**14  # rows of embeddings
SUM_TOLERANCE = 1e-3  # how far the shares of a question may be from 1 in total
# In the metadata of a group's table: the JSON of the group's Description. Not every survey has it.
DESCRIPTION = b"pluralllm.description"
INFLUENCE = b"pluralllm.influence"  # likewise the JSON of its Influence, where that is known

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


@dataclass(frozen=True, eq=False)
class GroupAnswers:
    """The answers of one group, to Q questions with R options in all."""

    questions: Ints  # [Q] index of each in the survey, ascending
    shares: Floats  # [R]
    respondents: Doubles | None  # [Q] people asked, NaN where unknown; None: all unknown
    influence: Influence | None
    description: Description | None


def map_embeddings(file: Path, dim: int) -> Halves:
    """Return the embeddings, float16 [rows, dim], mapped: pages are read only as they are used.

    What is written to the array stays in this process.

    Raises:
        SurveyError: missing or damaged file, no tensor `embeddings`, another type or width.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:  # checks header and length of the file
            if "embeddings" not in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                raise refusal(file, "has no tensor 'embeddings'")
            part = tensors.get_slice("embeddings")
            kind, shape = part.get_dtype(), part.get_shape()
        with file.open("rb") as opened:
            header = opened.read(int.from_bytes(opened.read(8), "little"))
        offset = 8 + len(header) + parse_json(header)["embeddings"]["data_offsets"][0]
    except FileNotFoundError:
        raise missing(file) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise refusal(file, f"cannot be read ({type(error).__name__})") from error
    if kind != "F16" or len(shape) != 2 or shape[1] != dim:
        raise refusal(file, f"holds {kind} {shape}, not F16 [rows, {dim}]")
    # Torch shares an array with a copy on write silently, but warns of a read-only one.
    return np.asarray(np.memmap(file, np.float16, "c", offset, tuple(shape)))


def check_finite(file: Path, embeddings: Halves) -> None:
    """Raise SurveyError unless the embeddings, those of `file`, are all finite; reads all."""
    for first in range(0, len(embeddings), _AT_ONCE):
        if not np.isfinite(embeddings[first : first + _AT_ONCE]).all():
            raise refusal(file, "holds numbers that are not finite")


def read_questions(file: Path, rows: int, metric: str) -> pa.Table:
    """Return questions.parquet, checked against the number of embedding rows and the metric.

    Raises:
        SurveyError: missing or damaged file, duplicate ids, or anything that does not add up.
    """
    table = read_columns(file, QUESTIONS_SCHEMA, nullable="values", rows=rows // 2, values=rows)
    if pc.count_distinct(table["question_id"]).as_py() != table.num_rows:
        raise refusal(file, "has duplicate question ids")
    counts = numbers(pc.list_value_length(table["options"]))
    if (counts < 2).any():
        raise refusal(file, "has a question with fewer than two options")
    if not np.array_equal(numbers(table["first_row"]), segment_starts(counts)):
        raise refusal(file, "numbers its embedding rows wrongly")
    if counts.sum() != rows:
        raise refusal(file, f"has {counts.sum()} options but there are {rows} embeddings")
    if metric in ORDINAL_METRICS:
        values = pc.list_flatten(table["values"])
        whole = not table["values"].null_count and not values.null_count
        whole = whole and np.array_equal(numbers(pc.list_value_length(table["values"])), counts)
        if not whole or not pc.all(pc.is_finite(values)).as_py():
            raise refusal(file, f"lacks ordinal values, which metric {metric} needs")
    return table


def read_answers(file: Path, expected: int, ids: pa.Array, options: Ints, dim: int) -> GroupAnswers:
    """Return what a group's file holds: its answers, and its description where it has one.

    Args:
        file: of the group.
        expected: how many questions the group answers according to survey.json.
        ids: the ids of all questions of the survey.
        options: how many options each of these has.
        dim: of the survey's embeddings.

    Raises:
        SurveyError: missing or damaged file, an unknown or repeated question, or bad shares.
    """
    values = int(options.sum()) + len(ids)  # a list without values counts as one
    table = read_columns(file, GROUP_SCHEMA, nullable="respondents", rows=len(ids), values=values)
    if table.num_rows != expected:
        own = many(table.num_rows, "question")
        raise refusal(file, f"answers {own} but survey.json says {expected}")
    respondents = _respondents(file, table["respondents"].combine_chunks())
    indices = pc.index_in(table["question_id"], value_set=ids)
    if indices.null_count:
        row = indices.is_null().to_pylist().index(True)
        raise refusal(file, f"answers a question that questions.parquet lacks (row {row + 1})")
    questions = numbers(indices).astype(np.int64)
    counts = numbers(pc.list_value_length(table["shares"])).astype(np.int64)
    wrong = np.flatnonzero(counts != options[questions])
    if len(wrong):
        row = int(wrong[0])
        raise refusal(
            file,
            f"gives {many(counts[row], 'share')} for a question with "
            f"{many(options[questions[row]], 'option')} (row {row + 1})",
        )
    order = np.argsort(questions, kind="stable")
    if (np.diff(questions[order]) == 0).any():
        raise refusal(file, "answers a question twice")
    flat = pc.list_flatten(table["shares"])
    if flat.null_count:
        raise refusal(file, "has shares that are not finite")
    shares = _normalised(file, numbers(flat), counts)
    starts = segment_starts(counts)
    rows = segment_rows(starts[order], counts[order])
    return GroupAnswers(
        questions=questions[order],
        shares=shares[rows].astype(np.float32),
        respondents=None if respondents is None else respondents[order],
        influence=_influence(file, table.schema.metadata, order),
        description=_description(file, table.schema.metadata, dim),
    )


def read_description(file: Path, dim: int) -> Description | None:
    """Return the description in a group's file, without reading the answers.

    Raises:
        SurveyError: missing or damaged file, or a damaged description.
    """
    try:
        schema = pq.read_schema(file)
    except FileNotFoundError:
        raise missing(file) from None
    except (OSError, pa.ArrowException) as error:
        raise refusal(file, f"cannot be read ({type(error).__name__})") from error
    return _description(file, schema.metadata, dim)


def _description(
    file: Path, metadata: Mapping[bytes, bytes] | None, dim: int
) -> Description | None:
    if not metadata or DESCRIPTION not in metadata:
        return None
    try:
        content = parse_json(metadata[DESCRIPTION])
        text, embedding = content["text"], np.array(content["embedding"], np.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise refusal(file, "has a damaged description") from error
    if not isinstance(text, str) or embedding.shape != (dim,) or not np.isfinite(embedding).all():
        raise refusal(file, f"has a description without {dim} finite numbers")
    return Description(text, embedding)


def _influence(file: Path, metadata: Mapping[bytes, bytes] | None, order: Ints) -> Influence | None:
    if not metadata or INFLUENCE not in metadata:
        return None
    try:
        content = parse_json(metadata[INFLUENCE])
        largest, questions = np.array(content["largest"], np.float64), content["questions"]
        sound = largest.shape == order.shape and ((largest > 0) & (largest <= 1)).all()
        if not sound or type(questions) is not int or not questions > 0:
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise refusal(file, "says wrongly how much a respondent can change") from error
    return Influence(largest[order], min(questions, len(order)))


def _respondents(file: Path, column: pa.Array) -> Doubles | None:
    known = np.from_dlpack(pc.indices_nonzero(column.is_valid()))
    if not len(known):
        return None
    people = np.full(len(column), np.nan)
    people[known] = np.from_dlpack(column.drop_null())
    if (people[known] < 1).any():
        raise refusal(file, "has a number of respondents below 1")
    return people


def _normalised(file: Path, shares: Doubles, counts: Ints) -> Doubles:
    """Rescale the shares of each question to sum to 1, from within SUM_TOLERANCE of it."""
    if not np.isfinite(shares).all():
        raise refusal(file, "has shares that are not finite")
    if (shares < 0).any():
        raise refusal(file, "has negative shares")
    sums = segment_sums(shares, counts)
    wrong = int((np.abs(sums - 1) > SUM_TOLERANCE).sum())
    if wrong:
        raise refusal(file, f"has {many(wrong, 'question')} whose shares do not sum to 1")
    rescaled: Doubles = shares / np.repeat(sums, counts)
    return rescaled


def questions_table(questions: Questions) -> pa.Table:
    """Return questions.parquet."""
    columns = [
        questions.ids,
        questions.texts,
        questions.options,
        questions.values,
        questions.first_rows,
    ]
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, QUESTIONS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=QUESTIONS_SCHEMA)


def group_tables(
    questions: Questions, answers: Answers, descriptions: Mapping[str, Description]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield the name of each group, and its answers in the order of the questions."""
    answers = answers.select(np.lexsort((answers.question, answers.group)), questions)
    ids = pa.array(questions.ids, pa.string())
    counts = questions.counts[answers.question]
    ends = np.concatenate([[0], np.cumsum(counts)])
    bounds = np.searchsorted(answers.group, np.arange(len(answers.groups) + 1))
    people = np.full(len(answers), np.nan) if answers.respondents is None else answers.respondents
    known = ~np.isnan(people)
    people = np.rint(np.where(known, people, 0)).astype(np.int64)
    for name, start, stop in zip(answers.groups, bounds[:-1], bounds[1:], strict=True):
        rows = slice(start, stop)
        offsets = (ends[start : stop + 1] - ends[start]).astype(np.int32)
        columns = [
            ids.take(pa.array(answers.question[rows])),
            pa.ListArray.from_arrays(offsets, answers.shares[ends[start] : ends[stop]]),
            pa.array(people[rows], pa.int64(), mask=~known[rows]),
        ]
        about = {}
        if name in descriptions:
            about[DESCRIPTION] = _described(descriptions[name])
        if answers.influence is not None and not np.isnan(answers.influence[rows]).any():
            most = min(answers.most_answered.get(name, stop - start), stop - start)
            about[INFLUENCE] = json.dumps(
                {"largest": answers.influence[rows].tolist(), "questions": int(most)}
            )
        schema = GROUP_SCHEMA.with_metadata(about) if about else GROUP_SCHEMA
        yield name, pa.Table.from_arrays(columns, schema=schema)


def _described(description: Description) -> str:
    content = {"text": description.text, "embedding": description.embedding.tolist()}
    return json.dumps(content, ensure_ascii=False)
