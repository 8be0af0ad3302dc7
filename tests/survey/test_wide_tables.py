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
        (
            lambda table: table.assign(Total=1),
            "'Total' is hardly a group: it is called as totals",
        ),
        (lambda table: table.assign(North=[40, 57, None, None]), "25% of|50% of|67% of"),
        (lambda table: table.assign(North=[43, "x", None, None]), "have no finite number as"),
        (lambda table: table.assign(**{"": 1}), "has a column without a name"),
        (lambda table: table.assign(**{"": 1, " ": ""}), "has a column without a name"),
        (
            lambda table: table.assign(Note="see text"),
            "'Note' is hardly a group: it has remarks",
        ),
        (lambda table: table.assign(North="", South=""), "has no number in any of its columns"),
        (lambda table: table.assign(question=""), "rows that have no question"),
        (lambda table: pd.concat([table, table.tail(1).assign(question="")]), "have no question"),
        (lambda table: table.assign(north=1), "has two columns 'North': remove one"),
        (lambda table: table.assign(North=[43, -1, None, None]), "have a negative"),
    ],
)
def test_what_is_doubtful_is_refused(change: object, fault: str, tmp_path: Path) -> None:
    change(wide("group")).to_csv(tmp_path / "mine.csv", index=False)  # type: ignore[operator]
    with pytest.raises(SurveyError, match=fault):
        read_table(tmp_path / "mine.csv")


def asked(kind: str) -> pd.DataFrame:
    """Answers of two groups to four questions with two options."""
    rows = [
        (f"q{number}", "Tea?", option, group, share if kind == "percentages" else people)
        for number in range(4)
        for group, yes, several in (("North", 30 + 3 * number, 7), ("South", 60 - number, 9))
        for option, share in (("Yes", yes), ("No", 100 - yes))
        for people in [share * several]
    ]
    return pd.DataFrame(rows, columns=LONG.columns)


NO_ANSWERS = {
    "year": lambda rows: [2026] * rows,
    "N": lambda rows: [1203 + 10 * (row * 4 // rows) for row in range(rows)],  # by question
    "index": lambda rows: range(rows),
}


@pytest.mark.parametrize("kind", ["percentages", "counts"])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_a_column_of_no_group_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    table = wide("group", asked(kind))
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").answers.groups == ["North", "South"]
    table.assign(**{name: NO_ANSWERS[name](len(table))}).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(SurveyError, match=f"column '{name}' is hardly a group: it .*; remove it"):
        read_table(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("name", "numbers", "kinds"),
    [
        ("Mean", [1.7, 1.4] * 4, ["percentages"]),
        ("n", [1203, 900] * 4, ["percentages"]),
        ("year", [2025, 2026] * 4, ["percentages", "counts"]),
        ("index", range(8), ["percentages", "counts"]),
    ],
)
def test_a_column_of_no_option_is_refused(
    name: str, numbers: list[float], kinds: list[str], tmp_path: Path
) -> None:
    for kind in kinds:
        table = wide("option", asked(kind))
        table.to_csv(tmp_path / "mine.csv", index=False)
        assert read_table(tmp_path / "mine.csv").questions.options[0] == ["Yes", "No"]
        table.assign(**{name: numbers}).to_csv(tmp_path / "mine.csv", index=False)
        with pytest.raises(SurveyError, match=f"column '{name}' is hardly an option: .*; remove"):
            read_table(tmp_path / "mine.csv")


def test_an_option_of_rounded_shares_is_kept(tmp_path: Path) -> None:
    # Without "Other", two rows sum to 100, and with it three do.
    rows = [[54, 45, 1], [55, 45, 1], [50, 49, 1], [55, 44, 1], [60, 40, 1]]
    table = pd.DataFrame(rows, columns=["Yes", "No", "Other"])
    table.insert(0, "question_id", "q1")
    table.insert(1, "question", "Tea?")
    table.insert(2, "group", [f"G{number}" for number in range(5)])
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").questions.options == [["Yes", "No", "Other"]]


def test_shares_that_rise_by_one_from_row_to_row_are_no_numbers_of_rows(tmp_path: Path) -> None:
    waves = [("q1", "Tea?", f"Wave {wave}", 50 + wave, 50 - wave) for wave in range(6)]
    columns = ["question_id", "question", "group", "Yes", "No"]
    pd.DataFrame(waves, columns=columns).to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").questions.options == [["Yes", "No"]]
    ages = [("q1", "How old?", f"Age {age}", share) for age, share in enumerate(range(18, 23))]
    columns = ["question_id", "question", "option", "North"]
    table = pd.DataFrame(ages, columns=columns)  # 18 + 19 + 20 + 21 + 22 = 100
    table.assign(South=20).to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").answers.groups == ["North", "South"]


def test_an_empty_column_is_no_group(tmp_path: Path) -> None:
    wide("group").assign(Note="").to_csv(tmp_path / "mine.csv", index=False)
    found = read_table(tmp_path / "mine.csv")
    assert "a column for each group, 2 of them" in found.note


def test_a_long_table_without_an_amount_is_none(tmp_path: Path) -> None:
    PLAIN.rename(columns={"count": "percent"}).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(SurveyError, match="needs one column of 'share' and 'count'"):
        read_table(tmp_path / "mine.csv", Stated())
