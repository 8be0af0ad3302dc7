"""How numbers are written, and when that is not clear."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.numbers import Numbers, reading
from pluralllm_app.survey.sources.share_sums import judge_sums
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("925", 925, 925),
        ("7.5", 7.5, None),
        ("7,5", None, 7.5),
        ("7.474", 7.474, 7474),
        ("7,474", 7474, 7.474),
        ("1.234.567", None, 1234567),
        ("1,234,567.5", 1234567.5, None),
        ("1 234,5", None, 1234.5),
        ("1 234", 1234, 1234),
        ("1'234.5", 1234.5, None),
        ("0.333", 0.333, None),  # no number begins with 0 and a sign between thousands
        ("0,333", None, 0.333),
        ("12.3456", 12.3456, None),
        ("1234.567", 1234.567, None),
        (".5", 0.5, None),
        ("5.", 5, None),
        ("-3", -3, -3),
        ("\u22123", -3, -3),
        ("1e3", 1000, 1000),
        ("25 %", 25, 25),
        ("24,8%", None, 24.8),
        ("12.34.56", None, None),
        ("1.23,456", None, None),
        ("1 23", None, None),
        ("x", None, None),
        ("", None, None),
        ("nan", None, None),
        ("inf", None, None),
        ("%", None, None),
        (".", None, None),
        ("1_000", None, None),
    ],
)
def test_a_text_has_one_reading_for_each_decimal_sign(text, point, comma):
    for sign, expected in ((".", point), (",", comma)):
        number = reading(text, sign).number
        assert np.isnan(number) if expected is None else number == expected


def numbers_of(column: Numbers, *batches: list) -> np.ndarray:
    """Read batches of cells and return all numbers as the whole column says."""
    start, read = 0, []
    for cells in batches:
        rows = np.arange(start, start + len(cells))
        read.append(column.read(pd.Series(cells), rows))
        start += len(cells)
    sign = column.decimal()
    return np.concatenate([own[sign] for own in read])


def count(stated: str | None = None) -> Numbers:
    return Numbers(Path("mine.csv"), "count", thousands=True, stated=stated)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([["7.474", "925"], ["7.5"]], [7.474, 925, 7.5]),  # a later cell tells
        ([["7.474", "925"], ["1.234.567"]], [7474, 925, 1234567]),
        ([["7.474", "925"], ["3,5"]], [7474, 925, 3.5]),
        ([["7,474", "925"], ["3,5"]], [7.474, 925, 3.5]),
        ([["7,474", "925"], ["0.5"]], [7474, 925, 0.5]),
        ([["925", "1"], ["2"]], [925, 1, 2]),
        ([["1 234", "925"]], [1234, 925]),
        ([[7.5, "7,5"]], [7.5, 7.5]),  # what is a number has no decimal sign
        ([[1, None, 2.5]], [1, np.nan, 2.5]),
        ([[True, "1"]], [np.nan, 1]),
        ([[[1], {}, "1"]], [np.nan, np.nan, 1]),
    ],
)
def test_a_column_tells_how_its_numbers_are_written(batches, expected):
    np.testing.assert_array_equal(numbers_of(count(), *batches), expected)


@pytest.mark.parametrize(
    ("batches", "fault"),
    [
        (
            [["925"], ["7.474"]],
            r"count '7.474' in data row 2 may be 7.474 or 7474.*--decimal point",
        ),
        (
            [["7,474"], ["925"]],
            r"'7,474' in data row 1 may be 7.474 or 7474.*--decimal comma if ','",
        ),
        ([["7.474", "3.125"]], r"'7.474' in data row 1 may be"),
        (
            [["7.5"], ["8", "7,5"]],
            r"'7.5' in data row 1 has a decimal point, but '7,5' in data row 3",
        ),
        ([["1", "25 %"]], r"count '25 %' in data row 2 is a percentage.*column 'share'"),
        # Read from a text before, with the dots taken for decimal points: 8.140 is 8.14 now.
        (
            [[7.474, 14.541, 8.14, 925.0]],
            r"7.474' in data row 1 has three decimals where others are",
        ),
        ([[7.474], [925]], r"has three decimals where others are whole"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(batches, fault):
    with pytest.raises(SurveyError, match=fault):
        numbers_of(count(), *batches)


def test_what_is_stated_decides():
    cells = ["7.474", "925"]
    assert numbers_of(count("."), cells).tolist() == [7.474, 925]
    assert numbers_of(count(","), cells).tolist() == [7474, 925]
    assert numbers_of(count("."), [7.474, 925]).tolist() == [7.474, 925]
    with pytest.raises(
        SurveyError, match=r"'7\.5' in data row 1 has a decimal point, not a comma as"
    ):
        numbers_of(count(","), ["7.5"])
    with pytest.raises(SurveyError, match="three decimals"):
        numbers_of(count(","), [7.474, 925])


@pytest.mark.parametrize(
    "numbers",
    [
        [149.532, 0.127, 12],  # below 1
        [1149.532, 3.127, 12],  # no sign between its thousands
        [7.474, 3.125, 1200],
        [7.4741, 3.125, 12],
        [7.5, 3.25, 12],  # too few with three decimals
        [7.474, 3.125],  # no whole number beside them
    ],
)
def test_weighted_counts_are_no_misread_thousands(numbers):
    assert numbers_of(count(), numbers).tolist() == numbers


COLUMNS = ["question_id", "question", "option", "group"]


@pytest.fixture
def table(tmp_path: Path):
    def table(shares: list[list], column: str = "share", ending: str = ".csv") -> Path:
        """Write a table: for each question the cells of its options, all of one group."""
        rows = [
            (f"q{question}", "Tea?", f"option {option}", "North", cell)
            for question, own in enumerate(shares)
            for option, cell in enumerate(own)
        ]
        frame = pd.DataFrame(rows, columns=[*COLUMNS, column])
        file = tmp_path / f"mine{ending}"
        if ending == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_json(file, orient="records", lines=True)
        return file

    return table


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    "shares",
    [
        [[0.25, 0.75], [0.5, 0.5]],
        [[25, 75], [50, 50]],
        [[25.0, 75.0], [49.9, 50.0]],
        [["25%", "75%"], ["50 %", "50 %"]],
        [["25,0 %", "75,0 %"], ["50,0\u00a0%", "50,0%"]],
        [["0,25", "0,75"], ["0,5", "0,5"]],
        [["25,0", "75"], ["50", "50"]],
        [["25,000", "75,000"], ["50", "50"]],  # no share is large enough for thousands
        [["25.000", "75.000"], ["50", "50"]],
    ],
)
def test_shares_and_percentages(table, shares, ending):
    survey = read_table(table(shares, ending=ending))
    np.testing.assert_allclose(survey.answers.shares, [0.25, 0.75, 0.5, 0.5], atol=1e-3)
    assert survey.answers.respondents is None
    assert ("percentages" in survey.note) == (shares[0][0] not in (0.25, "0,25"))
    assert ("decimal commas" in survey.note) == ("," in str(shares[0][0]))


@pytest.mark.parametrize(
    ("shares", "fault"),
    [
        (
            [[25, 75], [50, 40]],
            r"percentages of 1 answer.* sum to 100.*'q1'.*row 3 on: they sum to 90",
        ),
        ([[25, 75], [50, 50], [0.5, 0.5]], r"'q2'.*row 5 on.*shares and percentages are mixed"),
        ([[0.5, 0.5], [0.5, 0.5], [50, 50]], r"'q2'.*they sum to 100: shares and percentages are"),
        ([["0.25%", "0.75%"]], r"percentages of 1 answer.*they sum to 1"),
        (
            [["25%", "75"]],
            r"'25%' in data row 1 has a percent sign, but '75' in data row 2 has none",
        ),
        ([["25%", 0.75]], r"'25%' in data row 1 has a percent sign, but '0.75' in data row 2"),
        ([[250, 750], [1200, 1000]], r"they sum to 1000: if they are numbers of people.*'count'"),
        ([["1.234", "2"]], r"they sum to 3.234"),
        (
            [["-0.5", "1.5"]],
            r"rows that have a negative share: 1, the first is data row 1 with '-0.5'",
        ),
        ([["k.A.", "1"]], r"no finite number as share: 1, the first is data row 1 with 'k.A.'"),
        ([["", "1"]], r"no finite number as share: 1, the first is data row 1 with an empty cell"),
    ],
)
def test_wrong_shares_are_refused_with_the_first(table, shares, fault):
    with pytest.raises(SurveyError, match=fault):
        read_table(table(shares))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [2, 7, 10, 20])
@pytest.mark.parametrize(("digits", "whole"), [(2, 1), (1, 1), (3, 1), (0, 100), (1, 100)])
def test_rounded_shares_are_taken_whatever_their_number(seed, options, digits, whole):
    rng = np.random.default_rng(seed)
    exact = rng.dirichlet(np.ones(options), 500)
    rounded = np.round(exact * whole, digits)
    lengths, given = np.full(500, options), np.full(500, float(options))
    sums = judge_sums(rounded.ravel(), lengths, given, percent=False)
    assert sums.whole == whole
    assert not len(sums.wrong)


@pytest.mark.parametrize(
    ("shares", "wrong"),
    [
        ([0.33, 0.33, 0.32], False),  # 0.98
        ([0.34, 0.34, 0.34], False),  # 1.02
        ([0.33, 0.33, 0.30], True),  # 0.96: two digits of three shares explain 0.015
        ([0.3, 0.3, 0.3], False),  # one digit
        ([0.2, 0.2, 0.4], True),
        ([0.333, 0.333, 0.310], True),
        ([1.0, 1.0, 0.0], True),
        ([33, 33, 33], False),
        ([33.3, 33.3, 31.3], True),
    ],
)
def test_tolerance_is_that_of_rounding(shares, wrong):
    # Beside answers that are right, since most answers tell whether shares are percentages.
    right = [0.5, 0.25, 0.25] if shares[0] < 2 else [50, 25, 25]
    for others in (0, 5):
        flat = np.array([*shares, *right * others], float)
        if others and max(map(len, map(str, shares))) < 4 and sum(shares) != 99:
            continue  # with one digit beside two, two are expected
        lengths = np.full(1 + others, 3)
        sums = judge_sums(flat, lengths, lengths.astype(float), percent=False)
        assert (0 in sums.wrong) == wrong
        assert set(sums.wrong) <= {0}


def test_a_missing_option_is_not_taken_for_rounding():
    # In a table of two digits, an answer whose digits happen to be few is no rougher.
    flat = np.array([0.5, 0.2] + [0] * 8 + [0.11, 0.09] * 5, float)
    sums = judge_sums(flat, np.array([10, 10]), np.array([2.0, 10.0]), percent=False)
    assert sums.wrong.tolist() == [0]


def test_what_was_understood_is_said(table):
    survey = read_table(table([["33,3", "33,3", "33,3"], ["50,0", "25,0", "25,0"]]))
    assert (
        survey.note == "decimal commas; percentages; rounded shares, which sum to between 0.999 "
        "and 1.000, rescaled"
    )
    assert (
        read_table(table([["1.149,5", "3"]], "count")).note
        == "decimal commas; dots between thousands; counts that are no whole numbers, so sums of "
        "weights and not of people"
    )


@pytest.mark.parametrize(
    ("counts", "whole"),
    [
        ([[25, 75], [40, 60]], "100"),
        ([[24.9, 75.0], [40, 60]], "100"),
        ([[0.25, 0.75], [0.4, 0.6]], "1"),
        ([[1, 0], [0, 1]], ""),  # one person
        ([[25, 75], [40, 69]], ""),
    ],
)
def test_counts_that_look_like_shares_are_pointed_out(table, counts, whole):
    note = read_table(table(counts, "count")).note
    assert note.startswith(f"counts that sum to about {whole} in" if whole else "")
    assert bool(note) == bool(whole)


def test_source_and_licence_may_be_stated(table):
    file = table([[1, 2]], "count")
    survey = read_table(file, Stated(source="Institute of Tea", licence="CC BY 4.0"))
    assert (survey.source, survey.licence) == ("Institute of Tea", "CC BY 4.0")
    assert read_table(file).licence == "not stated"
    zipped = file.with_name("Tea 2024.CSV.gz")
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    assert read_table(zipped).name == "Tea 2024"
