"""The questions here are made up; only the layout is that of the data set."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.errors import MissingPartError, SurveyError
from pluralllm_app.survey.sources.globalopinionqa import read_global_opinions


def cell(content: str) -> str:
    return f"defaultdict(<class 'list'>, {content})"


GOOD = ("Is it warm?", cell("{'Egypt': [0.25, 0.75], 'Peru': [0.5, 0.5]}"), "['Yes', 'No']", "GAS")


@pytest.fixture
def read(tmp_path: Path):
    def read(*rows: tuple[str, str, str, str]):
        file = tmp_path / "opinions.csv"
        columns = ["question", "selections", "options", "source"]
        pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
        return read_global_opinions(file)

    return read


def test_reads_questions_and_shares(read):
    survey = read(
        GOOD,
        ("How many?", cell("{'Peru': [0.1, 0.2, 0.7]}"), "[1.0, 2.5, 'More']", "WVS"),
    )
    assert survey.questions.texts == ["Is it warm?", "How many?"]
    assert survey.questions.options == [["Yes", "No"], ["1", "2.5", "More"]]
    assert survey.answers.counts() == {"Egypt": 1, "Peru": 2}
    np.testing.assert_allclose(survey.answers.shares, [0.25, 0.75, 0.5, 0.5, 0.1, 0.2, 0.7])
    assert not any(survey.dropped.values())


def test_a_country_is_one_group_however_it_is_written(read):
    survey = read(
        GOOD,
        ("A?", cell("{'Egypt ': [0.5, 0.5], 'Me\u0301xico': [1.0, 0.0]}"), "['a', 'b']", "GAS"),
        ("B?", cell("{'M\u00e9xico': [0.5, 0.5]}"), "['a', 'b']", "GAS"),
    )
    assert survey.answers.counts() == {"Egypt": 2, "Peru": 1, "M\u00e9xico": 2}


def test_shares_are_rescaled(read):
    survey = read(("Q?", cell("{'Peru': [0.5, 0.497]}"), "['a', 'b']", "GAS"))
    np.testing.assert_allclose(survey.answers.shares, [0.5 / 0.997, 0.497 / 0.997])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", *GOOD[1:]), "questions without text"),
        (("Q?", "", "['a', 'b']", "GAS"), "questions without answers"),
        (("Q?", GOOD[1], "", "GAS"), "questions with fewer than two options"),
        (("Q?", GOOD[1], "['a']", "GAS"), "questions with fewer than two options"),
        (GOOD, "questions that repeat an earlier one"),
        (("Q?", cell("{'Peru': []}"), "['a', 'b']", "GAS"), "answers without shares"),
        (
            ("Q?", cell("{'Peru': [0.0, 0.0]}"), "['a', 'b']", "GAS"),
            "answers with shares that are all zero",
        ),
        (
            ("Q?", cell("{'Peru': [nan, 1.0]}"), "['a', 'b']", "GAS"),
            "answers with shares that are not finite",
        ),
        (
            ("Q?", cell("{'Peru': [0.5, 0.2, 0.3]}"), "['a', 'b']", "GAS"),
            "answers with another number of shares than options",
        ),
    ],
)
def test_unusable_rows_are_dropped_and_counted(read, row, reason):
    survey = read(GOOD, row)
    assert {key: count for key, count in survey.dropped.items() if count} == {reason: 1}
    assert survey.answers.counts()["Egypt"] == 1


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (("Q?", "[0.5, 0.5]", "['a', 'b']", "GAS"), "row 2 has a malformed 'selections'"),
        (("Q?", cell("{'Peru': 1}"), "['a', 'b']", "GAS"), "row 2 has a malformed 'selections'"),
        (("Q?", cell("{'Peru': ['x']}"), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (("Q?", cell("{'Peru': [True]}"), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (
            ("Q?", cell("{'Peru': [1" + "0" * 400 + "]}"), "['a', 'b']", "GAS"),
            "row 2 .* 'selections'",
        ),
        (("Q?", cell("{**{'Peru': [1.0]}}"), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (("Q?", cell("{' ': [0.5, 0.5]}"), "['a', 'b']", "GAS"), "no country.*row 2"),
        (
            ("Q?", cell("{'Peru': [0.2, 0.8], 'Peru': [0.9, 0.1]}"), "['a', 'b']", "GAS"),
            "a country that their row has named before.*row 2",
        ),
        (
            ("Q?", cell("{'Peru': [0.2, 0.8], ' Peru': [0.9, 0.1]}"), "['a', 'b']", "GAS"),
            "a country that their row has named before.*row 2",
        ),
        (("Q?", cell("{1: [1.0]}"), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (("Q?", cell("{'Peru': [0.5, 0.5]"), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (("Q?", cell("{" + "(" * 5000), "['a', 'b']", "GAS"), "row 2 .* 'selections'"),
        (("Q?", GOOD[1], "'ab'", "GAS"), "row 2 has a malformed 'options'"),
        (("Q?", GOOD[1], "['a', 1e999]", "GAS"), "row 2 has a malformed 'options'"),
        (("Q?", GOOD[1], "['a', nan]", "GAS"), "row 2 has a malformed 'options'"),
        (("Q?", GOOD[1], "['a', None]", "GAS"), "row 2 has a malformed 'options'"),
        (("Q?", cell("{'Peru': [-0.5, 1.5]}"), "['a', 'b']", "GAS"), "negative shares.*row 2"),
        (("Q?", cell("{'Peru': [0.5, 0.2]}"), "['a', 'b']", "GAS"), "do not sum to 1.*row 2"),
    ],
)
def test_broken_rows_are_refused(read, row, fault):
    with pytest.raises(SurveyError, match=fault):
        read(GOOD, row)


def test_cells_are_not_evaluated(read, tmp_path):
    trap = tmp_path / "trap"
    attack = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    for text in (attack, f"[{attack}]", cell(f"{{'Peru': {attack}}}")):
        for row in ((GOOD[0], text, *GOOD[2:]), (*GOOD[:2], text, GOOD[3])):
            with pytest.raises(SurveyError, match="row 1 has a malformed"):
                read(row)
    assert not trap.exists()


def test_file_faults(tmp_path):
    with pytest.raises(SurveyError, match="not a file"):
        read_global_opinions(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(SurveyError, match="has no rows"):
        read_global_opinions(tmp_path / "empty.csv")
    (tmp_path / "columns.csv").write_text("question,selections,source\n")
    with pytest.raises(SurveyError, match="no column 'options'; found: question, selections"):
        read_global_opinions(tmp_path / "columns.csv")
    (tmp_path / "binary.csv").write_bytes(b"question\n" + bytes(range(32, 256)))
    with pytest.raises(SurveyError, match="not in UTF-8, and its encoding is not clear"):
        read_global_opinions(tmp_path / "binary.csv")


def test_download_reads_what_datasets_gives(read, tmp_path, monkeypatch):
    local = read(GOOD)
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        frame = pd.read_csv(tmp_path / "opinions.csv", dtype=str, keep_default_na=False)
        return SimpleNamespace(to_pandas=lambda: frame)

    monkeypatch.setitem(
        sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, __spec__=1)
    )
    downloaded = read_global_opinions()
    assert asked == [("Anthropic/llm_global_opinions", "train")]
    assert downloaded.questions.ids == local.questions.ids
    np.testing.assert_array_equal(downloaded.answers.shares, local.answers.shares)


def test_download_without_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPartError, match=r"--file.*pip install 'pluralllm-app\[hub\]'"):
        read_global_opinions()
