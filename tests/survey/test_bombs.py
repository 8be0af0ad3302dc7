"""Attacks by files: some kilobytes that would become gigabytes are refused before they do."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey import parquet_files
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.shared import fingerprint
from pluralllm_app.survey.sources import parquet_columns, unpacking
from pluralllm_app.survey.sources.opinionqa import records
from pluralllm_app.survey.sources.table import read_table

MANY = 5_000_000
# Counts what it gives; buffers of it outlive the blocks in which they were made.
POOL = pa.proxy_memory_pool(pa.system_memory_pool())


@pytest.fixture
def tiny(write: Callable[..., PreparedSurvey]) -> PreparedSurvey:
    """The tiny survey: questions of 2, 3 and 2 options; North answers the first and the last."""
    return write()


@contextmanager
def allocating(most: float) -> Iterator[None]:
    """Check that Arrow needs no more bytes in the block."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(POOL)
    try:
        yield
    finally:
        pa.set_memory_pool(before)
    assert POOL.max_memory() < most


def varint(number: int, width: int = 0) -> bytes:
    """A whole number as Thrift writes it, in as many bytes as `width` at least."""
    number *= 2
    found = bytearray()
    while number > 127 or len(found) + 1 < width:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def lie(file: Path, number: int, told: int) -> None:
    """Let the footer of a Parquet file tell another number, wherever it tells this one."""
    raw = file.read_bytes()
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    told_bytes = varint(told, len(varint(number)))
    footer = raw[start:-8].replace(varint(number), told_bytes)
    assert footer != raw[start:-8]
    file.write_bytes(raw[:start] + footer + raw[-8:])


def repeated(text: str, count: int) -> pa.Array:
    """A text so many times, which a file holds once."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text]).cast(pa.string())


def shares_of(count: int) -> pa.Array:
    """Two rows, the first of which has so many shares."""
    flat = np.full(count + 2, 0.5)
    return pa.ListArray.from_arrays(pa.array([0, count, count + 2], pa.int32()), flat)


def test_a_column_that_is_not_of_the_format_is_not_read(tiny: PreparedSurvey) -> None:
    file = tiny.path / "groups/north.parquet"
    table = pq.read_table(file)
    offsets = pa.array([0, MANY, MANY], pa.int32())
    bomb = pa.ListArray.from_arrays(offsets, np.zeros(MANY))
    pq.write_table(table.append_column("note", bomb), file)
    assert file.stat().st_size < 20_000
    del bomb, table
    with allocating(1e6):  # the column has 40 MB
        assert len(tiny.preferences("North")) == 2


@pytest.mark.parametrize("told", [MANY + 2, 4])
def test_more_shares_than_the_survey_has_options(tiny: PreparedSurvey, told: int) -> None:
    file = tiny.path / "groups/north.parquet"
    table = pq.read_table(file).set_column(1, "shares", shares_of(MANY))
    pq.write_table(table, file, write_statistics=False)
    del table
    if told != MANY + 2:
        lie(file, MANY + 2, told)
    assert file.stat().st_size < 20_000
    fault = r"north\.parquet has 5,000,002 values of 'shares', and"
    with allocating(1e6), pytest.raises(SurveyError, match=fault):
        tiny.preferences("North")


def test_more_rows_than_the_survey_has_questions(tiny: PreparedSurvey) -> None:
    file = tiny.path / "groups/north.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table] * 1000), file)
    with pytest.raises(SurveyError, match="2,000 rows where there are at most 3"):
        tiny.preferences("North")


def test_more_questions_than_options(tiny: PreparedSurvey) -> None:
    file = tiny.path / "questions.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(file)] * 2), file)
    with pytest.raises(SurveyError, match="6 rows where there are at most 3"):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize("column", ["text", "options"])
def test_a_text_that_is_written_once_and_used_by_all(
    tiny: PreparedSurvey, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setattr(parquet_files, "MOST_SIZE", 2**20 * 3)
    file = tiny.path / "questions.parquet"
    table = pq.read_table(file)
    long = repeated("z" * 2**20, 7)
    bomb = long.slice(0, 3)
    if column == "options":
        bomb = pa.ListArray.from_arrays(pa.array([0, 2, 5, 7], pa.int32()), long)
    pq.write_table(table.set_column(table.column_names.index(column), column, bomb), file)
    assert file.stat().st_size < 2**20
    with pytest.raises(SurveyError, match=f"bytes of '{column}', and 3,145,728 are read"):
        PreparedSurvey.open(tiny.path)


def test_texts_that_extend_one_another_are_not_read(tiny: PreparedSurvey) -> None:
    file = tiny.path / "questions.parquet"
    encodings = {"text": "DELTA_BYTE_ARRAY"}
    pq.write_table(pq.read_table(file), file, use_dictionary=False, column_encoding=encodings)
    with pytest.raises(SurveyError, match="'text' is in the encoding DELTA_BYTE_ARRAY"):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_of_every_kind_are_read(
    tiny: PreparedSurvey, version: str, compression: str, dictionary: bool
) -> None:
    questions, north = tiny.questions(), tiny.preferences("North")
    for file in ("questions.parquet", "groups/north.parquet"):
        pq.write_table(
            pq.read_table(tiny.path / file),
            tiny.path / file,
            data_page_version=version,
            compression=compression,
            use_dictionary=dictionary,
            row_group_size=1,
            write_page_checksum=True,
        )
    again = PreparedSurvey.open(tiny.path)
    again.verify()
    assert again.questions() == questions
    assert (again.preferences("North").shares == north.shares).all()


@pytest.mark.parametrize("column", ["text", "question_id"])
def test_names_with_points_read_no_other_column(tiny: PreparedSurvey, column: str) -> None:
    file = tiny.path / "questions.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column(f"{column}.x", pa.array(["a", "b", "c"])), file)
    with pytest.raises(SurveyError, match=f"2 columns that begin with '{column}'"):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize("name", ["survey.json", "site.json"])
def test_json_that_is_nested_too_deeply(tiny: PreparedSurvey, name: str, tmp_path: Path) -> None:
    from pluralllm_app.survey.site import Site, write_site

    site = write_site(tiny, "North", tmp_path / "site")
    (site.survey.path / name).write_text("[" * 10**6)
    with pytest.raises(SurveyError, match=rf"{name.split('.')[0]}\.json"):
        Site.open(site.survey.path) if name == "site.json" else PreparedSurvey.open(
            site.survey.path
        )


def test_json_that_is_too_long(tiny: PreparedSurvey) -> None:
    with (tiny.path / "survey.json").open("wb") as file:
        file.truncate(10**10)  # a hole, which takes no room
    with pytest.raises(SurveyError, match=r"survey\.json cannot be read"):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize("dim", [0, -2, 10**9])
def test_no_dimension(tiny: PreparedSurvey, dim: int) -> None:
    file = tiny.path / "survey.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dim": dim}))
    save_file(
        {"embeddings": np.zeros((10**9, 0), np.float16)}, tiny.path / "embeddings.safetensors"
    )
    with pytest.raises(SurveyError, match="no valid 'dim'"):
        PreparedSurvey.open(tiny.path)


def test_vectors_that_are_not_finite(tiny: PreparedSurvey) -> None:
    vectors = np.zeros((7, 2), np.float16)
    vectors[3, 1] = np.nan
    save_file({"embeddings": vectors}, tiny.path / "embeddings.safetensors")
    file = tiny.path / "survey.json"  # as who makes such a survey would write it
    own = fingerprint(tiny.questions(), vectors)
    file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": own}))
    with pytest.raises(SurveyError, match=r"embeddings\.safetensors holds numbers that are not"):
        PreparedSurvey.open(tiny.path).verify()


def test_a_table_whose_text_is_written_once_and_used_by_all(tmp_path: Path) -> None:
    rows = 3000
    columns = {name: ["x"] * rows for name in ("question", "group", "option")}
    shares = np.full(rows, 0.5)
    long = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["z" * 2**20])
    table = pa.table({"question_id": long, **columns, "share": shares})
    file = tmp_path / "table.parquet"
    pq.write_table(table, file, store_schema=False)
    assert file.stat().st_size < 2**20
    fault = r"'question_id' would become up to 3,1.* bytes, and 2,14"
    with allocating(1e7), pytest.raises(SurveyError, match=fault):
        read_table(file)


@pytest.mark.slow
@pytest.mark.parametrize("told", [MANY, 4])
def test_a_table_of_more_rows_than_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    monkeypatch.setattr(parquet_columns, "MOST_VALUES", MANY - 1)
    file = tmp_path / "table.parquet"
    one = repeated("x", MANY)
    pq.write_table(
        pa.table(dict.fromkeys(("question_id", "question", "group", "option", "share"), one)), file
    )
    if told != MANY:
        lie(file, MANY, told)
    del one
    with pytest.raises(SurveyError, match="'question_id' has more than 4,999,999 values"):
        read_table(file)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table.csv.gz", "table.jsonl.gz", "table.parquet.gz"])
def test_what_gzip_makes_of_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", 2**24)
    file = tmp_path / name
    start = b"PAR1" if "parquet" in name else b"question,group,option,share\n"
    with gzip.open(file, "wb") as stream:
        stream.write(start + bytes(2**26))
    with pytest.raises(SurveyError, match="more than 16,777,216 bytes: unpack it with gunzip"):
        read_table(file)


@pytest.mark.parametrize("content", [b"[" * 10**6, b"[" + b"[]," * 2**22 + b"[]]"])
def test_json_records_that_are_nested_or_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(records, "MOST_PACKED", 2**20)
    file = tmp_path / "records.json.gz"
    with gzip.open(file, "wb") as stream:
        stream.write(content)
    with pytest.raises(SurveyError, match=r"cannot read .*(recursion|unpack it with gunzip)"):
        records.read_records(file)
