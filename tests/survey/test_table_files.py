"""Files that are damaged, of another kind than their names say, or lack cells."""

import gzip
import json
import lzma
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import COLUMNS, PLAIN, numbered

TEXT = PLAIN.to_csv(index=False).encode()


PACKED = gzip.compress(TEXT, mtime=0)  # the same bytes in every process


def refused(file: Path, fault: str) -> None:
    with pytest.raises(SurveyError, match=fault) as error:
        read_table(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "older Excel.*save the table as CSV"),
        (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "a PDF document.*save the table as CSV"),
        (b"BZh91AY&SY", "compressed in another way than gzip: unpack it"),
        (lzma.compress(TEXT), "compressed in another way than gzip: unpack it"),
        (gzip.compress(PACKED, mtime=0), "compressed by gzip twice: unpack it"),
        (b"\n<HTML><table><tr><td>question_id", "a web page"),
        (b'<?xml version="1.0"?><Workbook>', "in XML: save the table as CSV"),
        (b"$FL2@(#) SPSS DATA FILE", "SPSS or Stata"),
        (PACKED[:-20], "gzip compressed is cut off or damaged.*copy the file again"),
        (PACKED[:-8] + bytes(8), "cut off or damaged.*copy the file again"),
        (PACKED[:20], "cut off or damaged.*copy the file again"),
    ],
)
def test_files_of_other_kinds_say_what_they_are(tmp_path, content, fault):
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    refused(file, fault)


def test_parquet_that_is_none_or_cut_off(tmp_path):
    file = tmp_path / "mine.parquet"
    file.write_bytes(TEXT)
    refused(file, "it is no Parquet file: give its name the ending of what it is")
    PLAIN.to_parquet(file)
    file.write_bytes(file.read_bytes()[:-200])
    refused(file, "may be cut off or damaged")


@pytest.mark.parametrize(
    ("kind", "as_dictionary"),
    [(pa.float16(), False), (pa.float32(), False), (pa.float32(), True)],
)
def test_small_floats_are_what_people_wrote(tmp_path, kind, as_dictionary):
    file = tmp_path / "mine.parquet"
    table = pa.Table.from_pylist(numbered([1.1, 2.0], [0.1, 0.2]))
    for place in (0, 2):
        column = table.column(place).cast(kind)
        column = column.dictionary_encode() if as_dictionary else column
        table = table.set_column(place, table.column_names[place], column)
    pq.write_table(table, file)
    survey = read_table(file)
    assert survey.questions.ids == ["1.1", "2"]
    assert survey.questions.options == [["0.1", "0.2"]] * 2


@pytest.mark.parametrize("space", ["", " "])
def test_a_key_that_is_there_twice(tmp_path, space):
    file = tmp_path / "mine.jsonl"
    rows = [
        json.dumps(row, separators=(", ", f"{space}: ")) for row in numbered("a", ["Yes", "No"])
    ]
    file.write_text("\n".join(rows))
    read_table(file)
    rows[2] = rows[2][:-1] + f', "count"{space}: 999}}'
    file.write_text("\n".join(rows))
    refused(file, "data row 3, line 3 has 'count' twice: remove one")


def test_texts_that_look_like_keys_are_none(tmp_path):
    file = tmp_path / "mine.jsonl"
    options = ['say "count": 1', "{}"]
    file.write_text("\n".join(map(json.dumps, numbered("a", options))))
    assert read_table(file).questions.options == [options]


def test_quotation_marks_after_backslashes(tmp_path):
    file = tmp_path / "mine.csv"
    good = pd.DataFrame(numbered("a", ["Yes", "No"])).assign(question='Is it "hot"?')
    text = good.to_csv(index=False)
    assert '"Is it ""hot""?"' in text
    file.write_text(text)
    assert read_table(file).questions.texts == ['Is it "hot"?']
    for spelling in ('"Is it \\"hot\\"?"', 'Is it \\"hot\\"?', '"\\"Is\\" it hot?"'):
        file.write_text(text.replace('"Is it ""hot""?"', spelling))
        refused(file, "backslash.*doubled|doubled.*backslash")
    file.write_text(text.replace('"Is it ""hot""?"', '"C:\\"'))  # honest: the text ends in one
    assert read_table(file).questions.texts == ["C:\\"]
    refused_line = json.dumps(numbered("a", ["Yes"])[0] | {"question": 'Is it \\"hot\\"?'})
    (tmp_path / "mine.jsonl").write_text(refused_line)
    refused(tmp_path / "mine.jsonl", "quotation mark after a backslash")


HALVES = ["a,Tea?,Yes,North,12,5", "a,Tea?,No,North,3", "a,Tea?,Yes,South,2,5", "a,Tea?,No,South,7"]


@pytest.mark.parametrize("last", ["value", "note"])
def test_a_number_cut_at_its_comma_in_a_row_without_last_cell(tmp_path, last):
    file = tmp_path / "mine.csv"
    header = ",".join([*COLUMNS, last])
    file.write_text("\n".join([header, *HALVES]))
    refused(
        file, "data row 1 ends in '12' and '5', and data row 2 has no such last cell.*quotation"
    )
    file.write_text("\n".join([f"{header},description", *HALVES]))
    refused(file, "data row 1 ends in '12' and '5', and data row 2 has no such last cell")
    full = [row if row.count(",") == 5 else f"{row},1" for row in HALVES]
    file.write_text("\n".join([header, *full]))
    survey = read_table(file)
    assert ("ordinal values from 1 to 5" in survey.note) == (last == "value")
    words = [row.replace("12,5", "12,good").replace("2,5", "2,bad") for row in HALVES]
    file.write_text("\n".join([header.replace("value", "note"), *words]))
    read_table(file)


def test_a_description_that_is_a_number_is_half_of_one(tmp_path):
    file = tmp_path / "mine.csv"
    rows = [row if row.count(",") == 5 else f"{row},5" for row in HALVES]
    file.write_text("\n".join([",".join([*COLUMNS, "description"]), *rows]))
    refused(file, "may be half of a number .*, the first is data row 1 with '5'")
    rows = [f"{row.rsplit(',', 1)[0]},1990" for row in rows]  # a year of birth
    file.write_text("\n".join([",".join([*COLUMNS, "description"]), *rows]))
    assert read_table(file).descriptions == {"North": "1990", "South": "1990"}


def test_counts_that_are_all_zero(tmp_path):
    file = tmp_path / "mine.csv"
    PLAIN.assign(count="0").to_csv(file, index=False)
    refused(file, "all counts are 0")
