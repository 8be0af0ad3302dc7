"""What a library doubts of a user's file is said in a sentence of ours, or is no answer."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from openpyxl import load_workbook

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.library_warnings import without_warnings
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import same
from tests.survey.test_workbooks import saved

# As Excel writes where cells are chosen from lists of another sheet.
LISTS = b'<extLst><ext uri="{CCE6A557-97BC-4B89-ADB6-D9C93CAAB3DF}"/></extLst></worksheet>'


def frames() -> Iterator[int]:
    yield 1
    warnings.warn("the second is doubtful", RuntimeWarning, stacklevel=1)
    yield 2


def test_a_doubt_is_an_error_while_a_file_is_read_and_nowhere_else() -> None:
    read = without_warnings(frames())
    assert next(read) == 1
    with pytest.warns(RuntimeWarning, match="elsewhere"):
        warnings.warn("elsewhere", RuntimeWarning, stacklevel=1)
    with pytest.raises(ValueError, match="says 'the second is doubtful': mend the file"):
        next(read)


def test_a_cell_that_is_no_date_is_named(tmp_path: Path) -> None:
    """It would be read as the text #VALUE!, with a warning."""
    file = saved(tmp_path / "mine.xlsx")
    book = load_workbook(file)
    cell = book.worksheets[0]["C3"]
    cell.value, cell.number_format = 1e9, "yyyy-mm-dd"
    book.save(file)
    fault = (
        r"cannot read .*mine\.xlsx: cell C3 of the workbook has the format of a date and holds 1"
    )
    with pytest.raises(SurveyError, match=fault):
        read_table(file)


def test_what_is_no_cell_is_no_matter(expected: SurveyContent, tmp_path: Path) -> None:
    plain, file = saved(tmp_path / "plain.xlsx"), tmp_path / "mine.xlsx"
    sheet = "xl/worksheets/sheet1.xml"
    with ZipFile(plain) as own, ZipFile(file, "w") as other:
        for name in own.namelist():
            content = own.read(name)
            other.writestr(
                name, content.replace(b"</worksheet>", LISTS) if name == sheet else content
            )
    with pytest.warns(UserWarning, match="Data Validation extension is not supported"):
        list(load_workbook(file, read_only=True).worksheets[0].iter_rows())
    assert same(read_table(file), expected)
