"""What a cell says does not depend on how a file stores it."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import COLUMNS, PLAIN, numbered, same

MULTI = PLAIN.assign(count=PLAIN["count"].astype(float))


@pytest.mark.parametrize(
    "frame",
    [
        MULTI.set_index("question_id"),
        MULTI.set_index(["question_id", "group"]),
        MULTI.set_index(COLUMNS[:4]),
        MULTI.sort_values("question", ascending=False),
        MULTI.rename(columns={"question_id": "\ufeffquestion_id", "option": " option "}),
        MULTI.assign(note=[[1]] * len(PLAIN)),
        MULTI.astype({"group": "category", "question": "string"}),
    ],
)
def test_parquet_of_pandas(tmp_path, frame):
    frame.to_parquet(tmp_path / "mine.parquet")
    survey = read_table(tmp_path / "mine.parquet")
    assert set(survey.questions.ids) == {"f1", "2"}
    assert survey.answers.counts() == {"Köln": 2, "Zürich": 1}
    assert survey.answers.respondents is None  # 1149.5 people are a sum of weights


def test_bytes_in_parquet_are_texts(tmp_path, expected):
    columns = {name: PLAIN[name].map(str.encode).tolist() for name in COLUMNS}
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table(columns), file)
    assert same(read_table(file), expected)
    columns["group"][3] = "Zürich".encode("latin-1")
    pq.write_table(pa.table(columns), file)
    with pytest.raises(SurveyError, match=r"data row 4 has bytes in column 'group' .*Z\\xfcrich"):
        read_table(file)


def test_a_number_has_one_text_wherever_it_stands(tmp_path):
    ids, options = [1, 2, 3.5], [1, 2, 10]
    rows = numbered(ids, options)
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "c.parquet")
    frame.astype({"option": float}).to_parquet(tmp_path / "d.parquet")
    frame.astype({"option": "float32", "question_id": "float32"}).to_parquet(tmp_path / "e.parquet")
    frame.astype({"option": str, "question_id": str}).to_parquet(tmp_path / "f.parquet")
    frame.astype({"option": float}).to_csv(tmp_path / "g.csv", index=False)
    lines = [
        json.dumps({**row, "option": spelling(row["option"])})
        for row, spelling in zip(rows, [int, float, str] * 6, strict=True)
    ]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    decimals = pa.array(frame["option"].tolist()).cast(pa.decimal128(22, 2))
    pq.write_table(
        pa.Table.from_pandas(frame).set_column(2, "option", decimals), tmp_path / "i.parquet"
    )
    nothing = pd.DataFrame([dict.fromkeys(COLUMNS)])
    gap = pd.concat([frame, nothing]).astype({"option": "Int64", "count": "Int64"})
    gap.to_parquet(tmp_path / "j.parquet")
    for file in sorted(tmp_path.iterdir()):
        survey = read_table(file)
        assert survey.questions.ids == ["1", "2", "3.5"], file
        assert survey.questions.options == [["1", "2", "10"]] * 3, file


def test_a_number_has_one_text_in_every_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("pluralllm_app.survey.sources.table_files.BATCH", 4)
    rows = numbered([1, 3.5, 2], ["Yes", "No"])
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_table(tmp_path / "mine.jsonl").questions.ids == ["1", "3.5", "2"]


def test_large_numbers_keep_their_digits(tmp_path):
    ids = [2**53 + 1, 2**53 + 2]
    frame = pd.DataFrame(numbered(ids, ["Yes", "No"]))
    gap = pd.concat([frame, pd.DataFrame([dict.fromkeys(COLUMNS)])]).astype(
        {"question_id": "Int64"}
    )
    gap.to_parquet(tmp_path / "mine.parquet")
    frame.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    for name in ("mine.parquet", "mine.jsonl"):
        assert read_table(tmp_path / name).questions.ids == [str(id_) for id_ in ids]


def test_codes_with_zeros_stay_and_are_not_mixed_with_numbers(tmp_path):
    file = tmp_path / "mine.csv"
    pd.DataFrame(numbered(["007", "08"], ["1", "2"])).to_csv(file, index=False)
    assert read_table(file).questions.ids == ["007", "08"]
    for change in (
        {"question_id": {"08": "7"}},
        {"option": {"2": "01"}},
        {"group": {"North": "1", "South": "01"}},
    ):
        pd.DataFrame(numbered(["007", "08"], ["1", "2"])).replace(change).to_csv(file, index=False)
        with pytest.raises(SurveyError, match=r"has both '.+' and '.+' as .*: write them alike"):
            read_table(file)


@pytest.mark.parametrize(
    "name",
    [
        "New  Zealand",
        "New\u00a0Zealand",
        "\u200bNew Zealand",
        "New Zealand\ufeff",
        "New\tZealand",
        "New Zea\u00adland",
    ],
)
def test_names_that_look_alike_are_one_group(tmp_path, name):
    rows = numbered(["a", "b"], ["Yes", "No"])
    for row in rows[:4]:
        row["group"] = name
    for row in rows[4:]:
        row["group"] = "New Zealand"
        row["question_id"] += "2"
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").answers.counts() == {"New Zealand": 4}


@pytest.mark.parametrize(
    ("texts", "same"),
    [
        (["Yes", "yes"], True),
        (["Yes", "Yes."], True),
        (["Don't know", "Don\u2019t know"], True),
        (["18\u201329", "18-29"], True),
        (["+", "-"], False),
        (["C", "C+"], False),
        (["...", "."], False),
    ],
)
@pytest.mark.parametrize("column", ["option", "group"])
def test_two_spellings_of_a_text_are_refused(tmp_path, column, texts, same):
    rows = numbered(["a", "b"], ["No", "Perhaps"])
    kinds = {"No": texts[0], "Perhaps": texts[1], "North": texts[0], "South": texts[1]}
    frame = pd.DataFrame(rows)
    frame[column] = frame[column].map(kinds)
    frame.to_csv(tmp_path / "mine.csv", index=False)
    if same:
        with pytest.raises(SurveyError, match=f"has both .* as {column}: write them alike"):
            read_table(tmp_path / "mine.csv")
    else:
        read_table(tmp_path / "mine.csv")
