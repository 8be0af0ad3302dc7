"""Copies of GlobalOpinionQA as people save them; the questions are made up."""

import json
from collections import defaultdict
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.globalopinionqa import read_global_opinions
from pluralllm_app.survey.sources.literals import Pairs, parse
from pluralllm_app.survey.sources.stated import Stated

ROWS = [
    ("Is it warm?", {"Côte d'Ivoire": [0.25, 0.75], "Peru": [0.5, 0.5]}, ["Yes", "No"], "GAS"),
    ("How many?", {"Peru": [0.1, 0.2, 0.7]}, ["1", "2.5", 'More, or "all"'], "WVS"),
]
COLUMNS = ["question", "selections", "options", "source"]


def check(survey: SurveyContent) -> None:
    assert survey.questions.texts == ["Is it warm?", "How many?"]
    assert survey.questions.options == [row[2] for row in ROWS]
    assert survey.answers.counts() == {"Côte d'Ivoire": 1, "Peru": 2}
    np.testing.assert_allclose(survey.answers.shares, [0.25, 0.75, 0.5, 0.5, 0.1, 0.2, 0.7])


def lists(shares: dict[str, list[float]]) -> defaultdict:
    return defaultdict(list, shares)


def arrays(shares: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {country: np.array(own) for country, own in shares.items()}


def scalars(shares: dict[str, list[float]]) -> dict[str, list[np.float64]]:
    return {country: list(map(np.float64, own)) for country, own in shares.items()}


SELECTIONS = {
    "the data set": lambda shares: str(lists(shares)),
    "a dictionary": str,
    "JSON": json.dumps,
    "JSON with letters as they are": lambda shares: json.dumps(
        shares, ensure_ascii=False, indent=1
    ),
    "numbers of numpy": lambda shares: str(lists(scalars(shares))),
    "single precision": lambda shares: (
        str(shares)
        .replace("0.", "0.0")
        .replace("0.0", "np.float32(0.")
        .replace(", np", "), np")
        .replace("]", ")]")
    ),
    "arrays": lambda shares: str(arrays(shares)),
    "arrays with types": lambda shares: str(arrays(shares)).replace("])", "], dtype=float32)"),
    "printed arrays": lambda shares: (
        "{" + ", ".join(f"{country!r}: {np.array(own)}" for country, own in shares.items()) + "}"
    ),
    "an ordered dictionary": lambda shares: f"OrderedDict({shares})",
    "dict()": lambda shares: f"dict({shares})",
    "tuples": lambda shares: str({country: tuple(own) for country, own in shares.items()}),
    "spaces around": lambda shares: f"  {lists(shares)} \n",
}
OPTIONS = {
    "the data set": str,
    "JSON": json.dumps,
    "a printed array": lambda options: str(np.array(options, object)),
    "an array": lambda options: repr(np.array(options, object)),
    "texts of numpy": lambda options: str(list(map(np.str_, options))),
    "a tuple": lambda options: str(tuple(options)),
    "wrapped": lambda options: str(np.array(options, object)).replace(" ", "\n ", 1),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("selections", SELECTIONS)
def test_texts_in_other_spellings(tmp_path, selections, options):
    rows = [
        (question, SELECTIONS[selections](shares), OPTIONS[options](own), source)
        for question, shares, own, source in ROWS
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "mine.csv", index=False)
    check(read_global_opinions(tmp_path / "mine.csv"))


NUMBERED = [
    (*row[:2], [1, 2.5, 'More, or "all"'] if "1" in row[2] else row[2], row[3]) for row in ROWS
]


@pytest.mark.parametrize("rows", [ROWS, NUMBERED])
def test_lists_and_mappings_in_jsonl(tmp_path, rows):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows))
    check(read_global_opinions(file))


def test_lists_and_mappings_in_parquet(tmp_path):
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    frame.to_parquet(tmp_path / "structs.parquet")
    frame.set_index(["question", "source"]).to_parquet(tmp_path / "index.parquet")
    table = pa.Table.from_pandas(frame.drop(columns="selections"))
    kind = pa.map_(pa.string(), pa.list_(pa.float32()))
    maps = pa.array([list(row[1].items()) for row in ROWS], kind)
    pq.write_table(table.append_column("selections", maps), tmp_path / "maps.parquet")
    for file in tmp_path.iterdir():
        survey = read_global_opinions(file)
        survey.answers.shares[:] = np.round(survey.answers.shares, 6)
        check(survey)


@pytest.mark.parametrize("column", ["question", "source"])
def test_numbers_as_question_or_source(tmp_path, column):
    for name in ("mine.jsonl", "mine.parquet", "mine.csv"):
        frame = pd.DataFrame(ROWS, columns=COLUMNS).astype({"selections": str, "options": str})
        frame[column] = [7.0, 8.0]
        write = {"jsonl": frame.to_json, "parquet": frame.to_parquet, "csv": frame.to_csv}
        arguments = {"orient": "records", "lines": True} if "jsonl" in name else {}
        write[name.rpartition(".")[2]](tmp_path / name, **arguments)
        survey = read_global_opinions(tmp_path / name)
        ids = survey.questions.ids
        if column == "question":
            assert survey.questions.texts == (["7.0", "8.0"] if "csv" in name else ["7", "8"])
        assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"options": 5},
            "data row 2 has a malformed 'options' cell, expected is a list such as.*: 5",
        ),
        ({"options": {"a": 1}}, "data row 2 has a malformed 'options'"),
        ({"options": [["a"], "b"]}, "data row 2 has a malformed 'options'"),
        ({"options": [True, "b"]}, "data row 2 has a malformed 'options'"),
        ({"options": "['a' 'b"}, "data row 2 has a malformed 'options'"),
        ({"options": "Yes; No"}, "'options' cell, expected is a list such as .*: 'Yes; No'"),
        ({"selections": [1, 2]}, r"'selections' cell, expected is a mapping such as .*: \[1, 2\]"),
        ({"selections": "Peru: 0.5"}, "data row 2 has a malformed 'selections'.*: 'Peru: 0.5'"),
        ({"selections": {"Peru": 0.5}}, "data row 2 has a malformed 'selections'"),
        ({"selections": {"Peru": ["0.5"]}}, "data row 2 has a malformed 'selections'"),
        ({"selections": "{'Peru': open('x')}"}, "data row 2 has a malformed 'selections'"),
        ({"question": ["a"]}, "data row 2 has a malformed 'question' cell, expected is a text"),
        ({"source": {"a": 1}}, "data row 2 has a malformed 'source'"),
    ],
)
def test_what_is_neither_is_refused_with_its_row(tmp_path, changes, fault):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    rows[1] |= changes
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SurveyError, match=fault):
        read_global_opinions(tmp_path / "mine.jsonl")


def test_blank_rows_percentages_and_code_pages(tmp_path):
    rows = [
        (q, {c: [100 * s for s in own] for c, own in shares.items()}, o, s)
        for q, shares, o, s in ROWS
    ]
    frame = pd.DataFrame([rows[0], ("", "", "", ""), rows[1]], columns=COLUMNS)
    (tmp_path / "mine.csv").write_bytes(frame.to_csv(index=False, sep=";").encode("cp1252"))
    survey = read_global_opinions(tmp_path / "mine.csv", Stated(encoding="cp1252"))
    check(survey)
    assert survey.note == "Windows-1252; semicolons; 1 blank row left out; percentages"
    assert not any(survey.dropped.values())


def test_what_is_missing_in_json_is_left_out(tmp_path):
    rows = [(ROWS[0][0], '{"Peru": [0.5, 0.5], "Chile": [null, 1], "Laos": null}', *ROWS[0][2:])]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "mine.csv", index=False)
    survey = read_global_opinions(tmp_path / "mine.csv")
    assert survey.answers.counts() == {"Peru": 1, "Chile": 0}
    assert survey.dropped["answers with shares that are not finite"] == 1


VALUES = st.recursive(
    st.text(max_size=5) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def plain(value: object) -> object:
    if isinstance(value, dict):
        return Pairs((key, plain(own)) for key, own in value.items())
    return list(map(plain, value)) if isinstance(value, list) else value


@given(st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_python_and_json_are_read_alike(value):
    assert parse(repr(value)) == plain(value)
    assert parse(json.dumps(value)) == plain(value)
    if isinstance(value, dict):
        assert parse(repr(defaultdict(list, value))) == plain(value)
        assert parse(f"OrderedDict({value!r})") == plain(value)


@given(st.text(max_size=60))
def test_no_text_makes_parsing_fail_in_another_way(text):
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        parse(text)
