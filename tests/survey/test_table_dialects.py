"""One table, however it was saved, is one survey: or it is refused, but never read as another."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table
from tests.support.examples import at_most
from tests.support.tables import COLUMNS, PLAIN, same


def with_commas(number: str) -> str:
    return number.replace(".", ",")


def with_gaps(number: str, gap: str) -> str:
    whole, point, rest = number.partition(".")
    return f"{int(whole):,}".replace(",", gap) + point + rest


NUMBERS = {
    "points": lambda number: number,
    "commas": with_commas,
    "1,149.5": lambda number: with_gaps(number, ","),
    "1.149,5": lambda number: (
        with_gaps(with_commas(number).replace(",", "."), "~").replace(".", ",").replace("~", ".")
    ),
    "1 149.5": lambda number: with_gaps(number, " "),
    "1\u00a0149,5": lambda number: with_commas(with_gaps(number, "\u00a0")),
    "1\u202f149,5": lambda number: with_commas(with_gaps(number, "\u202f")),
    "1'149.5": lambda number: with_gaps(number, "'"),
    "1\u2019149.5": lambda number: with_gaps(number, "\u2019"),
    "exponents": lambda number: f"{float(number):.9e}",
    "signs": lambda number: f" +{number} ",
}


TITLES = [
    [],
    ["Table 12: Trust in the state, by region"],
    ['"Tabelle 12; Größe | 5"', "", "a question, 2026"],
    ["N = 1,203;;;"],
]


@st.composite
def dialects(draw: st.DrawFn) -> dict:
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]))
    return {
        "separator": draw(st.sampled_from([",", ";", "\t", "|"])),
        "encoding": encoding,
        "newline": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "numbers": draw(st.sampled_from(sorted(NUMBERS))),
        "quoting": draw(st.sampled_from([0, 1])),  # where needed, everywhere
        "blank": draw(st.lists(st.integers(0, len(PLAIN)), max_size=3)),
        "separators": draw(st.booleans()),  # in blank rows
        "titles": draw(st.sampled_from(TITLES)),
        "hint": draw(st.booleans()),
        "index": draw(st.booleans()),
        "capitals": draw(st.booleans()),
        "gzip": draw(st.booleans()),
        "ending": draw(st.sampled_from([".csv", ".CSV", ".txt", ".tsv", ".Tsv"])),
    }


def write(folder: Path, dialect: dict, frame: pd.DataFrame = PLAIN) -> Path:
    numbers = frame["count"].map(NUMBERS[dialect["numbers"]])
    names = [f" {name.title()}" if dialect["capitals"] else name for name in COLUMNS]
    separator, newline = dialect["separator"], dialect["newline"]
    text = (
        frame.assign(count=numbers)
        .set_axis(names, axis=1)
        .to_csv(
            sep=separator,
            index=dialect["index"],
            lineterminator=newline,
            quoting=dialect["quoting"],
        )
    )
    lines = text.split(newline)
    for place in sorted(dialect["blank"], reverse=True):
        lines.insert(1 + place, separator * 5 if dialect["separators"] else "")
    lines[:0] = dialect["titles"]
    if dialect["hint"]:
        lines.insert(0, f"sep={separator}")
    content = newline.join(lines).encode(dialect["encoding"])
    name = f"mine{dialect['ending']}"
    file = folder / (f"{name}.gz" if dialect["gzip"] else name)
    file.write_bytes(gzip.compress(content) if dialect["gzip"] else content)
    return file


@at_most(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dialects())
def test_separated_text_in_any_dialect_is_the_same_survey(tmp_path, expected, dialect):
    survey = read_table(write(tmp_path, dialect))
    assert same(survey, expected)
    assert ("blank row" in survey.note) == bool(dialect["blank"])
    assert ("above the header" in survey.note) == bool(dialect["titles"])
    assert ("semicolons" in survey.note) == (dialect["separator"] == ";")
    assert ("UTF-16" in survey.note) == dialect["encoding"].startswith("utf-16")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
COUNTS = st.one_of(
    st.integers(0, 10**7).map(str),
    st.decimals(0, 10**6, places=1).map(str),
    st.decimals(0, 10**6, places=2).map(str),
    st.decimals(0, 10**6, places=3).map(str),
)


@pytest.mark.slow
@at_most(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(WORDS, min_size=2, max_size=5, unique_by=lambda word: word.casefold()),
    st.lists(st.lists(COUNTS, min_size=2, max_size=2), min_size=2, max_size=5),
    dialects(),
)
def test_any_table_is_the_same_survey_in_any_dialect_or_refused(tmp_path, words, counts, dialect):
    rows = [
        (f"q{number}", f"{words[0]}?", word, words[-1], count)
        for number, own in enumerate(counts)
        for word, count in zip(words[:2], own, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    plain = {"separator": ",", "encoding": "utf-8", "newline": "\n", "numbers": "points"}
    plain |= {
        "quoting": 1,
        "blank": [],
        "titles": [],
        "separators": False,
        "hint": False,
        "index": False,
    }
    plain |= {"capitals": False, "gzip": False, "ending": ".csv"}
    try:
        # What the numbers are is stated, and must not be understood in another way.
        expected = read_table(write(tmp_path, plain, frame), Stated(decimal="point"))
        survey = read_table(write(tmp_path, dialect, frame))
    except SurveyError:
        return
    assert same(survey, expected)


def test_faults_of_files_say_what_to_do(tmp_path):
    file = tmp_path / "mine.csv"
    unquoted = PLAIN.to_csv(index=False, quoting=3, escapechar="\\").replace("\\", "")
    file.write_text(unquoted, "utf-8")
    with pytest.raises(
        SurveyError, match=r"data row 1 has 6 cells but the header has 5.*quotation"
    ):
        read_table(file)
    file.write_text(PLAIN.to_csv(index=False) + '"q9,Open?,Yes,Köln,3\n' * 3, "utf-8")
    with pytest.raises(SurveyError, match=r"data row 7: .*quotation mark"):
        read_table(file)
    file.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(SurveyError, match=r"Excel workbook.*save the table as CSV"):
        read_table(file)
    PLAIN.to_parquet(file)
    with pytest.raises(SurveyError, match=r"it is a Parquet file: .*\.parquet"):
        read_table(file)
    for name in ("count", "COUNT"):
        two = PLAIN.rename(columns={"count": name}).assign(Count="1")
        file.write_text(two.to_csv(index=False), "utf-8")
        fault = f"two columns '{name}' and 'Count': remove one"
        with pytest.raises(SurveyError, match=fault):
            read_table(file)
    file.write_bytes(gzip.compress(PLAIN.to_csv().encode())[:-20])
    with pytest.raises(SurveyError, match="cannot read"):
        read_table(file)
    file.write_text("\n\n;;;;\n", "utf-8")
    with pytest.raises(SurveyError, match="no column 'question_id'"):
        read_table(file)
    file.write_text(",".join(COLUMNS) + "\n,,,,\n\n", "utf-8")
    with pytest.raises(SurveyError, match="no rows"):
        read_table(file)


def test_rows_are_counted_with_blank_ones_in_every_kind_of_file(tmp_path):
    frame = pd.concat([PLAIN[:2], PLAIN[:1].map(lambda _: None), PLAIN[2:].assign(count="x")])
    for ending in (".csv", ".jsonl", ".parquet", ".csv.gz", ".JSONL", ".parquet.gz"):
        file = tmp_path / f"mine{ending}"
        if "csv" in ending:
            frame.to_csv(file, index=False, encoding="utf-8-sig")
        elif "json" in ending.lower():
            frame.to_json(file, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_parquet(tmp_path / "raw.parquet")
            content = (tmp_path / "raw.parquet").read_bytes()
            file.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
        with pytest.raises(
            SurveyError, match=r"have no finite number as count: 4, .* row 4 with 'x'"
        ):
            read_table(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_jsonl_has_any_encoding_and_byte_order_mark(tmp_path, expected, encoding):
    text = PLAIN.to_json(orient="records", lines=True, force_ascii=False)
    for name, content in (
        ("mine.jsonl", text.encode(encoding)),
        ("mine.JSONL.gz", gzip.compress(text.replace("\n", "\r\n\r\n").encode(encoding))),
    ):
        (tmp_path / name).write_bytes(content)
        assert same(read_table(tmp_path / name), expected)
