# ruff: noqa: RUF001 (letters of many scripts)
"""One table, however it was saved, is one survey: or it is refused, but never read as another."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table

COLUMNS = ["question_id", "question", "option", "group", "count"]
PLAIN = pd.DataFrame(
    [
        ("f1", "Mehr Geld für Grünanlagen?", "Ja, unbedingt", "Köln", "1149.5"),
        ("f1", "Mehr Geld für Grünanlagen?", "weiß nicht", "Köln", "16.25"),
        ("f1", "Mehr Geld für Grünanlagen?", "Ja, unbedingt", "Zürich", "925"),
        ("f1", "Mehr Geld für Grünanlagen?", "weiß nicht", "Zürich", "0"),
        ("2", 'Ist "gut" gut?', "Größer; kleiner", "Köln", "12345678"),
        ("2", 'Ist "gut" gut?', "gleich | anders", "Köln", "3"),
    ],
    columns=COLUMNS,
)


def same(one: SurveyContent, other: SurveyContent) -> bool:
    return (
        one.questions == other.questions
        and one.answers.groups == other.answers.groups
        and all(
            np.array_equal(getattr(one.answers, name), getattr(other.answers, name))
            for name in ("group", "question", "shares", "respondents")
        )
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> SurveyContent:
    file = tmp_path_factory.mktemp("tables") / "mine.csv"
    PLAIN.to_csv(file, index=False)
    survey = read_table(file)
    assert survey.note == ""
    assert survey.answers.respondents.tolist() == [1166, 12345681, 925]
    return survey


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
    if dialect["hint"]:
        lines.insert(0, f"sep={separator}")
    content = newline.join(lines).encode(dialect["encoding"])
    name = f"mine{dialect['ending']}"
    file = folder / (f"{name}.gz" if dialect["gzip"] else name)
    file.write_bytes(gzip.compress(content) if dialect["gzip"] else content)
    return file


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dialects())
def test_separated_text_in_any_dialect_is_the_same_survey(tmp_path, expected, dialect):
    survey = read_table(write(tmp_path, dialect))
    assert same(survey, expected)
    assert ("blank row" in survey.note) == bool(dialect["blank"])
    assert ("semicolons" in survey.note) == (dialect["separator"] == ";")
    assert ("UTF-16" in survey.note) == dialect["encoding"].startswith("utf-16")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
COUNTS = st.one_of(
    st.integers(0, 10**7).map(str),
    st.decimals(0, 10**6, places=1).map(str),
    st.decimals(0, 10**6, places=2).map(str),
    st.decimals(0, 10**6, places=3).map(str),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    plain |= {"quoting": 1, "blank": [], "separators": False, "hint": False, "index": False}
    plain |= {"capitals": False, "gzip": False, "ending": ".csv"}
    try:
        # What the numbers are is stated, and must not be understood in another way.
        expected = read_table(write(tmp_path, plain, frame), Stated(decimal="point"))
        survey = read_table(write(tmp_path, dialect, frame))
    except SurveyError:
        return
    assert same(survey, expected)


@pytest.mark.parametrize("page", ["cp1252", "latin-1", "cp1250", "mac_roman", "cp850"])
def test_german_is_read_in_the_code_pages_of_spreadsheets(tmp_path, expected, page):
    file = tmp_path / "mine.csv"
    file.write_bytes(PLAIN.to_csv(index=False, sep=";").encode(page))
    survey = read_table(file)
    assert same(survey, expected)
    name = {"mac_roman": "Mac Roman", "cp850": "DOS 850"}.get(page, "Windows-1252")
    assert name in survey.note


def refusal(file: Path) -> str:
    """Return why a table is refused, "" if it is not."""
    try:
        read_table(file)
    except SurveyError as error:
        return str(error)
    return ""


WORDS_IN_PAGES = [
    (
        "cp1251",
        "Должно ли государство тратить больше на экологию Согласен Затрудняюсь Москва Сибирь да",
    ),
    ("cp1253", "Πρέπει το κράτος να δαπανά περισσότερα για το περιβάλλον Συμφωνώ Διαφωνώ Αθήνα"),
    ("cp1250", "Zdecydowanie się zgadzam Łódź Śląsk Małopolska ochronę środowiska więcej"),
    ("cp1252", "très d'accord école élevée Île-de-France Rhône préférence"),
    ("cp1252", "España año mañana niños Sí Cataluña ¿Debería"),
    ("cp1252", "Don\u2019t know \u2013 maybe"),
    ("shift_jis", "政府は 環境に もっと お金を 使う べきですか はい いいえ わからない 東京 大阪"),
    ("gb18030", "政府 应该在 环境方面 花更多的钱吗 同意 不同意 不知道 北京 上海 广州"),
    ("cp1256", "هل يجب على الدولة إنفاق المزيد على البيئة موافق غير موافق القاهرة"),
    ("mac_roman", "très d'accord école élevée Île-de-France Rhône préférence"),
    ("cp1254", "Katılıyorum İstanbul Eskişehir Muğla Güneydoğu çok"),
]


@pytest.mark.parametrize(("page", "text"), WORDS_IN_PAGES)
def test_code_pages_are_read_rightly_or_refused(tmp_path, page, text):
    words = list(dict.fromkeys(text.split()))
    rows = pd.DataFrame(numbered(["a", "b"], words)).replace("South", "North").drop_duplicates()
    file = tmp_path / "mine.csv"
    for count in (2, 3, 5, len(words)):
        file.write_bytes(rows[rows.option.isin(words[:count])].to_csv().encode(page))
        assert read_table(file, Stated(encoding=page)).questions.options[0] == words[:count]
        why = refusal(file)
        assert (
            "--encoding" in why if why else read_table(file).questions.options[0] == words[:count]
        )


def test_pages_of_which_two_make_sense_are_named_with_what_they_read(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_bytes(PLAIN.replace("Köln", "très").to_csv().encode("cp1252"))
    assert re.search(
        r"several ways: 'très' \(cp1252\), 'trčs' \(cp1250\).*--encoding", refusal(file)
    )


def test_a_file_in_two_encodings_is_refused(tmp_path):
    file = tmp_path / "mine.csv"
    lines = PLAIN.to_csv(index=False).splitlines(keepends=True)
    file.write_bytes(
        b"".join(line.encode("utf-8" if at % 2 else "cp1252") for at, line in enumerate(lines))
    )
    with pytest.raises(SurveyError, match=r"not in UTF-8.*--encoding"):
        read_table(file)


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
    file.write_text(PLAIN.assign(Count="1").to_csv(index=False), "utf-8")
    assert read_table(file).note == ""  # exactly as asked for comes first
    file.write_text(PLAIN.rename(columns={"count": "COUNT"}).assign(Count="1").to_csv(), "utf-8")
    with pytest.raises(SurveyError, match="two columns 'count', 'COUNT' and 'Count': remove one"):
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
            SurveyError, match=r"4 row\(s\) have no finite number as count, .* row 4 with 'x'"
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


MULTI = PLAIN.assign(count=PLAIN["count"].astype(float))


@pytest.mark.parametrize(
    "frame",
    [
        MULTI.set_index("question_id"),
        MULTI.set_index(["question_id", "group"]),
        MULTI.set_index(COLUMNS[:4]),
        MULTI.sort_values("question", ascending=False),
        MULTI.rename(columns={"question_id": "\ufeffquestion_id", "option": " option "}),
        MULTI.assign(note=[[1]] * len(PLAIN)),
        MULTI.astype({"group": "category", "question": "string"}),
    ],
)
def test_parquet_of_pandas(tmp_path, frame):
    frame.to_parquet(tmp_path / "mine.parquet")
    survey = read_table(tmp_path / "mine.parquet")
    assert set(survey.questions.ids) == {"f1", "2"}
    assert survey.answers.counts() == {"Köln": 2, "Zürich": 1}
    assert survey.answers.respondents.sum() == 1166 + 12345681 + 925


def test_bytes_in_parquet_are_texts(tmp_path, expected):
    columns = {name: PLAIN[name].map(str.encode).tolist() for name in COLUMNS}
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table(columns), file)
    assert same(read_table(file), expected)
    columns["group"][3] = "Zürich".encode("latin-1")
    pq.write_table(pa.table(columns), file)
    with pytest.raises(SurveyError, match=r"data row 4 has bytes in column 'group' .*Z\\xfcrich"):
        read_table(file)


def numbered(ids: list, options: list) -> list[dict]:
    return [
        {
            "question_id": id_,
            "question": f"Is it {number}?",
            "option": option,
            "group": group,
            "count": 1,
        }
        for group in ("North", "South")
        for number, id_ in enumerate(ids)
        for option in options
    ]


def test_a_number_has_one_text_wherever_it_stands(tmp_path):
    ids, options = [1, 2, 3.5], [1, 2, 10]
    rows = numbered(ids, options)
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "c.parquet")
    frame.astype({"option": float}).to_parquet(tmp_path / "d.parquet")
    frame.astype({"option": "float32", "question_id": "float32"}).to_parquet(tmp_path / "e.parquet")
    frame.astype({"option": str, "question_id": str}).to_parquet(tmp_path / "f.parquet")
    frame.astype({"option": float}).to_csv(tmp_path / "g.csv", index=False)
    lines = [
        json.dumps({**row, "option": spelling(row["option"])})
        for row, spelling in zip(rows, [int, float, str] * 6, strict=True)
    ]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    decimals = pa.array(frame["option"].tolist()).cast(pa.decimal128(22, 2))
    pq.write_table(
        pa.Table.from_pandas(frame).set_column(2, "option", decimals), tmp_path / "i.parquet"
    )
    nothing = pd.DataFrame([dict.fromkeys(COLUMNS)])
    gap = pd.concat([frame, nothing]).astype({"option": "Int64", "count": "Int64"})
    gap.to_parquet(tmp_path / "j.parquet")
    for file in sorted(tmp_path.iterdir()):
        survey = read_table(file)
        assert survey.questions.ids == ["1", "2", "3.5"], file
        assert survey.questions.options == [["1", "2", "10"]] * 3, file


def test_a_number_has_one_text_in_every_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("pluralllm_app.survey.sources.table_files.BATCH", 4)
    rows = numbered([1, 3.5, 2], ["Yes", "No"])
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_table(tmp_path / "mine.jsonl").questions.ids == ["1", "3.5", "2"]


def test_large_numbers_keep_their_digits(tmp_path):
    ids = [2**53 + 1, 2**53 + 2]
    frame = pd.DataFrame(numbered(ids, ["Yes", "No"]))
    gap = pd.concat([frame, pd.DataFrame([dict.fromkeys(COLUMNS)])]).astype(
        {"question_id": "Int64"}
    )
    gap.to_parquet(tmp_path / "mine.parquet")
    frame.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    for name in ("mine.parquet", "mine.jsonl"):
        assert read_table(tmp_path / name).questions.ids == [str(id_) for id_ in ids]


def test_codes_with_zeros_stay_and_are_not_mixed_with_numbers(tmp_path):
    file = tmp_path / "mine.csv"
    pd.DataFrame(numbered(["007", "08"], ["1", "2"])).to_csv(file, index=False)
    assert read_table(file).questions.ids == ["007", "08"]
    for change in (
        {"question_id": {"08": "7"}},
        {"option": {"2": "01"}},
        {"group": {"North": "1", "South": "01"}},
    ):
        pd.DataFrame(numbered(["007", "08"], ["1", "2"])).replace(change).to_csv(file, index=False)
        with pytest.raises(SurveyError, match=r"has both '.+' and '.+' as .*: write them alike"):
            read_table(file)


@pytest.mark.parametrize(
    "name",
    [
        "New  Zealand",
        "New\u00a0Zealand",
        "\u200bNew Zealand",
        "New Zealand\ufeff",
        "New\tZealand",
        "New Zea\u00adland",
    ],
)
def test_names_that_look_alike_are_one_group(tmp_path, name):
    rows = numbered(["a", "b"], ["Yes", "No"])
    for row in rows[:4]:
        row["group"] = name
    for row in rows[4:]:
        row["group"] = "New Zealand"
        row["question_id"] += "2"
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    assert read_table(tmp_path / "mine.csv").answers.counts() == {"New Zealand": 4}
