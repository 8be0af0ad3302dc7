import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.sources import table_files
from pluralllm_app.survey.sources.table import read_table

COUNTED = pd.DataFrame(
    [
        ("007", "Tea?", "Yes", "North", 3),
        ("007", "Tea?", "No", "North", 1),
        ("bus", "Bus?", "Good", "North", 5),
        ("007", "Tea?", "No", "South", 2),
        ("007", "Tea?", "Rarely", "South", 2),
        ("bus", "Bus?", "Bad", "South", 4),
    ],
    columns=["question_id", "question", "option", "group", "count"],
)


@pytest.fixture
def read(tmp_path: Path):
    def read(frame: pd.DataFrame, ending: str = ".csv"):
        file = tmp_path / f"mine{ending}"
        if ending == ".csv":
            frame.to_csv(file, index=False)
        elif ending == ".parquet":
            frame.to_parquet(file)
        else:
            frame.to_json(file, orient="records", lines=True)
        return read_table(file)

    return read


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_counts_become_shares_and_respondents(read, ending):
    survey = read(COUNTED, ending)
    assert survey.questions.ids == ["007", "bus"]
    assert survey.questions.options == [["Yes", "No", "Rarely"], ["Good", "Bad"]]
    assert survey.questions.values == [None, None]
    answers = survey.answers
    assert [answers.groups[index] for index in answers.group] == [
        "North",
        "North",
        "South",
        "South",
    ]
    assert answers.question.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(answers.shares, [0.75, 0.25, 0, 1, 0, 0, 0.5, 0.5, 0, 1])
    assert answers.respondents.tolist() == [4, 5, 4, 4]


def random_table(groups: int, questions: int, options: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    group, question, option = np.indices((groups, questions, options)).reshape(3, -1)
    return pd.DataFrame(
        {
            "question_id": [f"q{number}" for number in question],
            "question": [f"Is {number} a number to be fond of?" for number in question],
            "option": [f"Option {number}" for number in option],
            "group": [f"Group {number}" for number in group],
            "count": rng.integers(1, 90, len(group)),
            "value": option * 1.0,
        }
    )


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_batches_make_no_difference(read, monkeypatch, ending):
    rows = random_table(5, 7).sample(frac=0.9, random_state=2).reset_index(drop=True)
    whole = read(rows, ending)
    monkeypatch.setattr(table_files, "BATCH", 9)
    parts = read(rows, ending)
    assert parts.questions == whole.questions
    for own in ("groups", "group", "question", "shares", "respondents"):
        np.testing.assert_array_equal(getattr(parts.answers, own), getattr(whole.answers, own))
    for (question, group), cell in rows.groupby(["question_id", "group"]):
        index = parts.questions.ids.index(question)
        (answer,) = np.flatnonzero(
            (parts.answers.question == index)
            & (parts.answers.group == parts.answers.groups.index(group))
        )
        shares = np.split(
            parts.answers.shares, np.cumsum(parts.questions.counts[parts.answers.question])
        )[answer]
        expected = cell.set_index("option")["count"].reindex(parts.questions.options[index])
        np.testing.assert_allclose(shares, expected.fillna(0) / expected.sum())


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ({7: {"option": "Bad"}, 19: {"option": ""}}, r"have no option.*: 1, .* row 20"),
        ({20: {"count": -1}, 30: {"count": -1}}, r"have a negative.*: 2, .* row 21"),
        ({20: {"question": "?"}}, "another question text.* row 21"),
        ({20: {"value": 9.0}}, "another ordinal value.* row 21"),
        ({20: {"group": "Group 0"}}, "repeat a question_id, group and option.* row 21"),
    ],
)
def test_rows_are_counted_over_batches(read, monkeypatch, rows, fault):
    table = random_table(3, 4)
    for row, cells in rows.items():
        for column, value in cells.items():
            table.loc[row, column] = value
    monkeypatch.setattr(table_files, "BATCH", 5)
    with pytest.raises(SurveyError, match=fault):
        read(table)


@pytest.mark.slow
def test_memory_is_a_few_numbers_for_each_row(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BATCH", 2**8)
    peaks = []
    for groups in (10, 110):
        file = tmp_path / f"{groups}.parquet"
        random_table(groups, 50).to_parquet(file)
        tracemalloc.start()
        read_table(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (100 * 50 * 4) < 60  # bytes


@pytest.mark.filterwarnings("error")
def test_texts_that_read_like_dates_stay_texts(read):
    date, time = "2020-01-01", "2020-01-01T10:00:00"
    frame = COUNTED.replace({"007": date, "Tea?": time, "Yes": date, "No": time, "North": date})
    survey = read(frame, ".jsonl")
    assert survey.questions.ids == [date, "bus"]
    assert survey.questions.texts == [time, "Bus?"]
    assert survey.questions.options[0] == [date, time, "Rarely"]
    assert survey.answers.groups == [date, "South"]


def test_shares_stay_and_give_no_respondents(read):
    frame = COUNTED.drop(columns="count").assign(share=[0.75, 0.25, 1.0, 0.5, 0.495, 1.0])
    answers = read(frame).answers
    assert answers.respondents is None
    np.testing.assert_allclose(answers.shares[5:8], [0, 0.5 / 0.995, 0.495 / 0.995])


def test_ordinal_values(read):
    survey = read(COUNTED.assign(value=["1", "2", "", "2", "3", ""]))
    assert survey.questions.values == [[1, 2, 3], None]


def test_group_that_counts_nobody_is_dropped(read):
    survey = read(COUNTED.assign(count=[0, 0, 5, 2, 2, 4]))
    assert survey.dropped["answers of a group that counts nobody"] == 1
    assert survey.answers.counts() == {"North": 1, "South": 2}


def test_weighted_counts_below_one_person_make_a_survey_that_reads(tmp_path):
    file = tmp_path / "mine.csv"
    COUNTED.assign(count=[0.2, 0.1, 5, 1.4, 1, 4]).to_csv(file, index=False)
    assert read_table(file).answers.respondents is None
    prepared = prepare(
        "table", tmp_path / "out", file=file, min_questions=1, console=Console(quiet=True)
    )
    np.testing.assert_allclose(prepared.preferences("North").shares[:2], [2 / 3, 1 / 3], rtol=1e-6)


def test_question_with_one_option_is_dropped(read):
    survey = read(COUNTED[COUNTED.option != "Bad"])
    assert survey.questions.ids == ["007"]
    assert survey.dropped["questions with fewer than two options"] == 1


def test_group_called_na_is_a_name(read):
    assert "NA" in read(COUNTED.replace("South", "NA")).answers.groups


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (COUNTED.drop(columns="group"), "no column 'group'; found: question_id, question, option"),
        (COUNTED.drop(columns="count"), "one column of 'share' and 'count'"),
        (COUNTED.assign(share=1), "one column of 'share' and 'count'"),
        (COUNTED.assign(count=[3, -1, 5, 2, -2, 4]), r"negative.*: 2, .* row 2"),
        (COUNTED.assign(count=[3, 1, 5, 1e300, 2, 4]), r"count above 1e\+12: 1, .* row 4"),
        (COUNTED.assign(count=[3, 1, None, 2, 2, 4]), r"have no finite.*: 1, .* row 3"),
        (COUNTED.assign(count=["x", 1, 5, 2, 2, 4]), r"have no finite.*: 1, .* row 1"),
        (COUNTED.assign(option=["", "No", "Good", "No", "Rarely", "Bad"]), "have no option"),
        (pd.concat([COUNTED, COUNTED[:1]]), "repeat a question_id, group and option.* row 7"),
        (
            COUNTED.assign(question=["Tea?", "Tea?", "Bus?", "Tee?", "Tea?", "Bus?"]),
            "another question text.* row 4",
        ),
        (COUNTED.assign(value=[1, 2, 1, 3, 3, 2]), "another ordinal value.* row 4"),
        (COUNTED.assign(value=[1, 2, "x", 2, 3, 1]), "no finite number.* row 3"),
        (
            COUNTED.drop(columns="count").assign(share=[0.7, 0.1, 1, 0.5, 0.5, 1]),
            r"1 answer do not sum to 1, the first is question '007', group 'North'",
        ),
    ],
)
def test_broken_tables_are_refused(read, frame, fault):
    with pytest.raises(SurveyError, match=fault):
        read(frame)


def test_file_faults(tmp_path):
    with pytest.raises(SurveyError, match="not a file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "mine.ods").touch()
    with pytest.raises(SurveyError, match=r"'\.ods': known are \.csv, \.parquet, \.jsonl"):
        read_table(tmp_path / "mine.ods")
    with pytest.raises(SurveyError, match="is a directory"):
        read_table(tmp_path)
    (tmp_path / "empty.csv").write_text("question_id,question,option,group,count\n")
    with pytest.raises(SurveyError, match="has no rows"):
        read_table(tmp_path / "empty.csv")
    for ending in ("parquet", "jsonl"):
        broken = tmp_path / f"broken.{ending}"
        broken.write_text("{not a table")
        with pytest.raises(SurveyError, match="cannot read"):
            read_table(broken)
        broken.write_text("")
        with pytest.raises(SurveyError, match="has no rows"):
            read_table(broken)
    COUNTED[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(SurveyError, match="has no rows"):
        read_table(tmp_path / "none.parquet")


ROW = '{"question_id": 1, "question": "Tea?", "option": "Yes", "group": "North", "count": 1}'


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[1, 2]", "line 3 is no JSON object"),
        ("null", "line 3 is no JSON object"),
        ("{", "line 3 is no JSON object"),
        ("[" * 100_000, "line 3 is no JSON object"),
        (ROW.replace('"Yes"', "[1]"), r"hold a list or an object as option.* row 3"),
        (ROW.replace('"Tea?"', '{"a": 1}'), r"hold a list or an object as question.* row 3"),
        (ROW.replace('"Yes"', "null"), r"have no option.* row 3"),
        (ROW.replace('"Yes"', '"\\ud800"'), "line 3 has half a character"),
        (ROW.replace('"count": 1', '"count": [1]'), r"no finite number as count.* row 3"),
        (ROW.replace('"count": 1', '"count": {}'), r"no finite number as count.* row 3"),
        (ROW.replace('"count": 1', '"value": [1], "count": 1'), r"value that is no finite.* row 3"),
    ],
)
def test_broken_lines_are_refused(tmp_path, line, fault):
    file = tmp_path / "mine.jsonl"
    file.write_text(f"{ROW.replace('Yes', 'No')}\n\n{line}\n")
    with pytest.raises(SurveyError, match=fault):
        read_table(file)


@pytest.mark.parametrize("column", ["question_id", "option", "group", "count"])
def test_parquet_columns_of_lists_are_refused(read, column):
    with pytest.raises(SurveyError, match=f"(an object|number) as {column}.* row 1"):
        read(COUNTED.assign(**{column: [[1, 2]] * len(COUNTED)}), ".parquet")


@pytest.mark.parametrize("name", ["North ", "\tNorth", "Co\u0302te", "Côte"])
def test_texts_that_look_the_same_are_the_same(read, name):
    clean = "Côte" if "te" in name else "North"
    survey = read(COUNTED.replace({"North": clean}).assign(group=[name, clean, *"abcd"]))
    assert survey.answers.groups == [clean, *"abcd"]


@pytest.mark.parametrize("amounts", ["1,234", "12,5", "60,4"])
def test_a_number_cut_at_its_comma_is_refused(tmp_path: Path, amounts: str) -> None:
    """The cell after the last column is empty, as where rows end in a separator."""
    file = tmp_path / "mine.csv"
    file.write_text(f"question_id,question,option,group,count,note\nq1,Tea?,Yes,North,{amounts},\n")
    with pytest.raises(SurveyError, match="data row 1 has 7 cells but the header has 6"):
        read_table(file)


def test_rows_may_end_in_a_separator_that_the_header_lacks(tmp_path: Path, read) -> None:
    file = tmp_path / "ends.csv"
    plain = COUNTED.to_csv(index=False).splitlines()
    file.write_text("\n".join([plain[0], *(f"{line}," for line in plain[1:])]))
    found, expected = read_table(file), read(COUNTED)
    assert found.questions == expected.questions
    np.testing.assert_array_equal(found.answers.shares, expected.answers.shares)


@pytest.mark.parametrize(
    "row", [{"GROUP": "South", "COUNT": 3}, {"data": {"group": "South"}}, {"note": "see below"}]
)
def test_a_row_with_other_keys_is_no_blank_row(tmp_path: Path, row: dict[str, object]) -> None:
    file = tmp_path / "mine.jsonl"
    COUNTED.to_json(file, orient="records", lines=True)
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n\n")
    with pytest.raises(SurveyError, match="data row 7 has none of the columns"):
        read_table(file)
