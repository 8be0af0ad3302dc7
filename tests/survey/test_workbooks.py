"""Tables in workbooks of Excel say what the same table as CSV says."""

import gzip
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pandas as pd
import pytest
from openpyxl import Workbook

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources import workbooks
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import PLAIN, same


def rows() -> list[list[object]]:
    plain = PLAIN.assign(count=PLAIN["count"].astype(float))
    return [list(PLAIN.columns), *plain.to_numpy(object).tolist()]


def saved(file: Path, *, title: bool = False, others: bool = False) -> Path:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    if others:
        sheet.append(["Notes", "on the survey"])
        sheet = book.create_sheet("Answers")
    if title:
        sheet.append(["What people said in 2026"])
        sheet.append([])
    for row in rows():
        sheet.append(row)
    book.save(file)
    return file


@pytest.mark.parametrize("shape", [{}, {"title": True}, {"others": True}])
def test_a_workbook_is_read(
    shape: dict[str, bool], expected: SurveyContent, tmp_path: Path
) -> None:
    survey = read_table(saved(tmp_path / "mine.xlsx", **shape))
    assert same(survey, expected)
    assert ("sheet 'Answers' of 2" in survey.note) == ("others" in shape)


def test_a_compressed_one(expected: SurveyContent, tmp_path: Path) -> None:
    content = saved(tmp_path / "mine.xlsx").read_bytes()
    (tmp_path / "mine.xlsx.gz").write_bytes(gzip.compress(content))
    assert same(read_table(tmp_path / "mine.xlsx.gz"), expected)


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.xlsx"
    PLAIN.to_csv(file)
    with pytest.raises(SurveyError, match="it is no workbook of Excel"):
        read_table(file)
    with ZipFile(file, "w") as packed:
        packed.writestr("notes.txt", "none")
    with pytest.raises(SurveyError, match="the workbook is damaged"):
        read_table(file)
    saved(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(SurveyError, match="the workbook is damaged"):
        read_table(file)
    book = Workbook()
    book.save(file)
    with pytest.raises(SurveyError, match="has no rows"):
        read_table(file)


def test_formulas_without_results_are_named(tmp_path: Path) -> None:
    book = Workbook()
    header, *answers = rows()
    for row in (header, *([*row[:-1], "=1+1"] for row in answers)):
        book.active.append(row)
    book.save(tmp_path / "mine.xlsx")
    with pytest.raises(SurveyError, match="its column 'count' has formulas without results: open"):
        read_table(tmp_path / "mine.xlsx")


def test_a_sheet_is_read_that_people_see(expected: SurveyContent, tmp_path: Path) -> None:
    book = Workbook()
    old, new = book.active, book.create_sheet("New")
    for row in rows():
        old.append([*row[:3], "Elsewhere", row[4]] if row[4] != "count" else row)
        new.append(row)
    old.sheet_state = "hidden"
    book.save(tmp_path / "mine.xlsx")
    assert same(read_table(tmp_path / "mine.xlsx"), expected)


def test_one_that_is_huge_when_unpacked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbooks, "MOST_BYTES", 2**20)
    file = tmp_path / "mine.xlsx"
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        packed.writestr("xl/sharedStrings.xml", b"\0" * 2**21)
    with pytest.raises(SurveyError, match="it unpacks to 2 MiB, more than 1: save the table as"):
        read_table(file)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"question": ["Tea?"], "option": ["Yes"]}).to_excel(
        tmp_path / "mine.xlsx", index=False
    )
    with pytest.raises(SurveyError, match="has no column 'question_id'; found: question, option"):
        read_table(tmp_path / "mine.xlsx")
