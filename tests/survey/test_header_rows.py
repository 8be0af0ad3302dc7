"""A header may stand below titles, and notes below a table; both are named, or refused by name."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.header_rows import find_text_header
from pluralllm_app.survey.sources.question_table import read_question_table
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table
from pluralllm_app.use.tables import read_file
from tests.support.tables import COLUMNS, PLAIN, same

TITLE = ["Table 12: Trust, by region", "2026"]  # of a table, in two cells
WIDE = [
    ["question_id", "question", "option", "Köln", "Zürich"],
    ["q1", "Tee?", "Ja", "12,5", "30"],
    ["q1", "Tee?", "Nein", "87,5", "70"],
]


def saved(file: Path, rows: Sequence[Sequence[object]]) -> Path:
    if file.suffix == ".xlsx":
        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(file)
    else:
        with file.open("w", newline="") as stream:
            csv.writer(stream, delimiter=";", quoting=csv.QUOTE_ALL).writerows(rows)
    return file


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_rows_above_the_header_are_left_out_and_named(ending, expected, tmp_path):
    long = [COLUMNS, *PLAIN.to_numpy().tolist()]
    rows = [TITLE, [], ["question", "by group"], *long]
    survey = read_table(saved(tmp_path / f"mine{ending}", rows), Stated(decimal="point"))
    assert same(survey, expected)
    assert "2 rows above the header left out, the first 'Table 12: Trust, by region" in survey.note


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_a_wide_table_between_a_title_and_a_note(ending, tmp_path):
    expected = read_table(saved(tmp_path / "plain.csv", WIDE), Stated(decimal="comma"))
    rows = [TITLE, [], *WIDE, [], ["Source: the office, 2026"], ["N = 1,203"]]
    survey = read_table(saved(tmp_path / f"mine{ending}", rows), Stated(decimal="comma"))
    assert same(survey, expected)
    assert survey.answers.shares.tolist() == [0.125, 0.875, 0.3, 0.7]
    assert "1 row above the header left out" in survey.note
    first = "2 rows without a number left out, the first is data row 4, 'Source: the office, 2026'"
    assert first in survey.note
    assert "without a number" not in expected.note


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
@pytest.mark.parametrize("note", ["Source: the office, 2026", "N = 1,203"])
def test_a_note_below_a_long_table_is_refused_by_name(ending, note, tmp_path):
    rows = [COLUMNS, *PLAIN.to_numpy().tolist(), [], [note]]
    file = saved(tmp_path / f"mine{ending}", rows)
    with pytest.raises(SurveyError, match=f"note below a table.*remove.*data row 8 with '{note}'"):
        read_table(file, Stated(decimal="point"))


def test_a_note_that_its_commas_cut_is_refused_by_name(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(PLAIN.to_csv(index=False) + "Source: the office, 2026\n")
    with pytest.raises(SurveyError, match=r"note below a table.*data row 7 with 'Source: the"):
        read_table(file, Stated(decimal="point"))
    file.write_text(PLAIN.to_csv(index=False) + "Source: a, b, c, d, e, f\n")
    with pytest.raises(SurveyError, match=r"data row 7 has 6 cells.*note has to be removed.*'b'"):
        read_table(file, Stated(decimal="point"))


def test_a_header_of_other_names_is_shown_and_not_a_row_below_it(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("Frage;Antwort;Anteil\nTee, Kaffee, Milch, Bier?;Ja;0,5\n")
    with pytest.raises(SurveyError, match=r"found: Frage, Antwort, Anteil$"):
        read_table(file)
    file.write_text("Table 12\n\nFrage;Antwort;Anteil\nTee, Kaffee, Milch, Bier?;Ja;0,5\n")
    with pytest.raises(SurveyError, match=r"found: Frage, Antwort, Anteil$"):
        read_table(file)


def test_answers_and_questions_below_a_title(tmp_path):
    questions = [
        ["question_id", "question", "option"],
        ["q1", "Tee?", "Ja"],
        ["q1", "Tee?", "Nein"],
    ]
    notes: list[str] = []
    file = saved(tmp_path / "questions.csv", [TITLE, *questions])
    assert read_question_table(file, Stated(), notes).options == [["Ja", "Nein"]]
    assert any("1 row above the header" in note for note in notes)
    answers = [["question", "option", "share"], ["Tee?", "Ja", "0.2"], ["Tee?", "Nein", "0.8"]]
    found = read_file(saved(tmp_path / "answers.csv", [TITLE, *answers]), Stated())
    assert any("1 row above the header" in note for note in found.notes)


def test_the_first_of_equal_rows_is_the_header():
    lines = ["id;option\n", "option;id\n", "x;y\n"]
    header = find_text_header(lines, ["id", "option"])
    assert (header.above, header.names, header.separator) == (1, ["id", "option"], ";")


def test_without_names_rows_of_a_single_cell_are_titles():
    header = find_text_header(["People of 2026\n", "\n", "age;party\n", "1,5;2,5\n"], [])
    assert (header.above, header.names) == (3, ["age", "party"])
    assert header.titles == ["People of 2026"]


def test_an_empty_text_has_no_header():
    assert find_text_header(["\n", " , \n"], []).names == ()


def test_a_cell_that_is_too_long_for_a_name_is_none(tmp_path):
    frame = pd.DataFrame([("q1", "x" * 200_000, option, "Köln", 1) for option in "ab"])
    file = tmp_path / "mine.csv"
    frame.set_axis(COLUMNS, axis=1).to_csv(file, index=False)
    assert len(read_table(file).questions.texts[0]) == 200_000
