"""Totals among the options of a crosstab are refused, and options that look like them are not."""

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import numbered

ROWS = pd.DataFrame(numbered(["a", "b"], ["Yes", "No"])).assign(count=[3, 1, 4, 2, 7, 0, 5, 5])


def with_total(name: str, frame: pd.DataFrame = ROWS, **changes: object) -> pd.DataFrame:
    keys = ["question_id", "question", "group"]
    totals = frame.groupby(keys, as_index=False)["count"].sum().assign(option=name, **changes)
    return pd.concat([frame, totals])


def read(frame: pd.DataFrame, path):
    frame.to_csv(path / "mine.csv", index=False)
    return read_table(path / "mine.csv")


@pytest.mark.parametrize(
    "name", ["Total", "TOTAL", "Gesamt", "Insgesamt", "Base", "Base (n=)", "合計", "Итого", "Sum"]
)
def test_a_total_is_refused(tmp_path, name):
    with pytest.raises(SurveyError, match=r"'North', from data row 1 on: .*total, remove its rows"):
        read(with_total(name), tmp_path)


def test_two_totals_and_rounded_ones_are_refused(tmp_path):
    two = with_total("Base").merge(with_total("Total"), how="outer")
    with pytest.raises(SurveyError, match=r"the option '(Base|Total)' is the sum"):
        read(two, tmp_path)
    weighted = ROWS.assign(count=ROWS["count"] * 100.4)
    rounded = with_total("Total", weighted)
    rounded["count"] = rounded["count"].round()
    with pytest.raises(SurveyError, match="remove its rows"):
        read(rounded, tmp_path)


def test_names_that_options_have_as_well_need_more(tmp_path):
    two = ROWS.assign(count=[3, 1, 4, 2, 3, 1, 5, 5])
    with pytest.raises(SurveyError, match="the option 'All' is the sum"):
        read(with_total("All", two), tmp_path)
    yes = two[two["option"] == "Yes"]
    for name in ("All", "N"):  # of two options, each may be half
        assert read(with_total(name, yes), tmp_path).questions.options[0] == ["Yes", name]
    read(with_total("N", two), tmp_path)  # four answers
    more = pd.concat([two, two.assign(group=two["group"] + "A")])
    with pytest.raises(SurveyError, match="the option 'N' is the sum"):
        read(with_total("N", more), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["Grand Total", "Total respondents", "Weighted base", "All respondents", "Basis (ungewichtet)"],
)
def test_names_of_several_words(tmp_path, name):
    two = ROWS.assign(count=[3, 1, 4, 2, 3, 1, 5, 5])
    with pytest.raises(SurveyError, match="remove its rows"):
        read(with_total(name, two), tmp_path)


def test_a_total_that_some_answers_lack(tmp_path):
    with pytest.raises(SurveyError, match=r"the option 'Total' .*'North', from data row 1 on"):
        read(with_total("Total")[:-3], tmp_path)
    survey = read(with_total("Total, of all that I own"), tmp_path)
    assert survey.questions.options[0][2] == "Total, of all that I own"


def test_yes_and_no_may_be_equal(tmp_path):
    rows = ROWS.assign(count=[1000, 1001] * 4).replace({"Yes": "Y", "No": "N"})
    assert read(rows, tmp_path).questions.options[0] == ["Y", "N"]


def test_a_total_of_any_name_is_said(tmp_path):
    many = pd.concat([ROWS.assign(group=ROWS["group"] + letter) for letter in "ABDE"])
    many["count"] = np.arange(len(many)) * 7 % 23 + 1
    assert "sum" not in read(with_total("Personen", many), tmp_path).note  # sixteen answers
    more = pd.concat([many, many.assign(group=many["group"] + "G")])
    note = read(with_total("Personen", more), tmp_path).note
    assert "the option 'Personen' is the sum of the others" in note


def test_an_option_called_total_that_is_no_sum_is_one(tmp_path):
    survey = read(with_total("Total", count=9), tmp_path)
    assert survey.questions.options == [["Yes", "No", "Total"]] * 2


@pytest.mark.parametrize("whole", [1, 100])
def test_a_total_among_shares_is_named_as_one(tmp_path, whole):
    share = [0.75, 0.25, 0.6, 0.4, 1, 0, 0.5, 0.5]
    frame = with_total("Total", ROWS.assign(count=[whole * own for own in share]))
    with pytest.raises(SurveyError, match="twice the whole: remove the rows of a total"):
        read(frame.rename(columns={"count": "share"}), tmp_path)


def with_base(name: str, questions: int, people: int = 1203) -> pd.DataFrame:
    """Percentages of two groups, with a row for how many people were asked."""
    rows = pd.DataFrame(numbered(list("abcdef")[:questions], ["Yes", "No"]))
    shares = rows.assign(count=[40, 60] * (len(rows) // 2))
    base = shares[shares["option"] == "Yes"].assign(option=name, count=people)
    return pd.concat([shares, base])


@pytest.mark.parametrize(("name", "questions"), [("Base", 1), ("n", 3), ("Befragte", 6)])
def test_a_number_of_people_asked_among_percentages_is_refused(tmp_path, name, questions):
    with pytest.raises(SurveyError, match=rf"without the option '{name}' every answer"):
        read(with_base(name, questions), tmp_path)
    wide = with_base(name, questions).pivot_table(
        index=["question_id", "question", "option"], columns="group", values="count"
    )
    wide.to_csv(tmp_path / "mine.csv")
    with pytest.raises(SurveyError, match=rf"without the option '{name}' every answer"):
        read_table(tmp_path / "mine.csv")


def test_an_option_beside_a_hundred_people_is_kept_where_it_may_be_chance(tmp_path):
    found = read(with_base("Perhaps", 2, people=20), tmp_path)
    assert found.questions.options[0] == ["Yes", "No", "Perhaps"]
    frame = with_base("Perhaps", 3, people=20)
    frame.iloc[0, frame.columns.get_loc("count")] = 80
    assert read(frame, tmp_path).questions.options[0] == ["Yes", "No", "Perhaps"]


def test_an_option_of_few_people_is_kept_though_the_others_are_a_hundred(tmp_path):
    found = read(with_base("Don't know", 6, people=4), tmp_path)
    assert found.answers.respondents.tolist() == [104] * 12
    with pytest.raises(SurveyError, match="without the option 'Base' every answer"):
        read(with_base("Base", 6, people=12), tmp_path)


def test_a_base_among_shares_is_refused_and_one_person_of_two_is_none(tmp_path):
    shares = with_base("n", 3)
    shares["count"] = shares["count"].where(shares["option"] == "n", shares["count"] / 100)
    with pytest.raises(SurveyError, match="without the option 'n' every answer sums to 1 or 100"):
        read(shares, tmp_path)
    people = pd.DataFrame(numbered(list("abcdef"), ["Yes", "No"]))
    assert read(people, tmp_path).answers.respondents.tolist() == [2] * 12
