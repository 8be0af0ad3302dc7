"""Tables with a column for each group, or for each option, say what the long table says."""

from pathlib import Path

import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import PLAIN, same

LONG = pd.DataFrame(
    [
        ("q1", "Tea?", "Yes", "North", 43),
        ("q1", "Tea?", "No", "North", 57),
        ("q1", "Tea?", "Yes", "South", 12),
        ("q1", "Tea?", "No", "South", 88),
        ("q2", "Bus?", "Good", "South", 30),
        ("q2", "Bus?", "Bad", "South", 70),
    ],
    columns=["question_id", "question", "option", "group", "share"],
)


def wide(what: str, long: pd.DataFrame = LONG) -> pd.DataFrame:
    amount = long.columns[-1]
    kept = [name for name in long.columns if name not in (what, amount)]
    table = long.pivot_table(index=kept, columns=what, values=amount, sort=False)
    return table.reset_index()


@pytest.mark.parametrize("what", ["group", "option"])
@pytest.mark.parametrize("written", ["percentages", "signs", "shares", "German"])
def test_wide_tables_are_read(what: str, written: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    table = wide(what)
    cells = [name for name in table.columns if name not in LONG.columns]
    if written == "signs":
        table[cells] = table[cells].map(lambda cell: "" if pd.isna(cell) else f"{cell:.0f}%")
    elif written in ("shares", "German"):
        table[cells] /= 100
    german = {"sep": ";", "decimal": ","} if written == "German" else {}
    table.to_csv(file, index=False, **german)
    LONG.to_csv(tmp_path / "long.csv", index=False)
    found, expected = read_table(file), read_table(tmp_path / "long.csv")
    assert same(found, expected)
    assert f"a column for each {what}" in found.note


@pytest.mark.parametrize("what", ["group", "option"])
def test_counts(what: str, tmp_path: Path) -> None:
    long = LONG.assign(share=[143, 57, 112, 88, 31, 90]).rename(columns={"share": "count"})
    wide(what, long).to_excel(tmp_path / "mine.xlsx", index=False)
    long.to_csv(tmp_path / "long.csv", index=False)
    found, expected = read_table(tmp_path / "mine.xlsx"), read_table(tmp_path / "long.csv")
    assert same(found, expected)
    assert found.answers.respondents is not None
    assert found.answers.respondents.tolist() == [200, 200, 121]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: table.assign(Total=1), "the column 'Total' is hardly a group but a total"),
        (lambda table: table.assign(North=[40, 57, None, None]), "25% of|50% of|67% of"),
        (lambda table: table.assign(North=[43, "x", None, None]), "have no finite number as"),
        (lambda table: table.assign(**{"": 1}), "has a column without a name"),
        (lambda table: table.assign(**{"": 1, " ": ""}), "has a column without a name"),
        (lambda table: table.assign(north=1), "has two columns 'North': remove one"),
        (lambda table: table.assign(North=[43, -1, None, None]), "have a negative"),
    ],
)
def test_what_is_doubtful_is_refused(change: object, fault: str, tmp_path: Path) -> None:
    change(wide("group")).to_csv(tmp_path / "mine.csv", index=False)  # type: ignore[operator]
    with pytest.raises(SurveyError, match=fault):
        read_table(tmp_path / "mine.csv")


def test_a_long_table_without_an_amount_is_none(tmp_path: Path) -> None:
    PLAIN.rename(columns={"count": "percent"}).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(SurveyError, match="needs one column of 'share' and 'count'"):
        read_table(tmp_path / "mine.csv", Stated())
