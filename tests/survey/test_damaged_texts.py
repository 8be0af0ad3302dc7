# ruff: noqa: RUF001 (signs of many scripts)
"""Texts that a wrong encoding has damaged are refused, and honest ones never are."""

import json

import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.damaged_texts import damage
from pluralllm_app.survey.sources.doubtful_texts import doubts
from pluralllm_app.survey.sources.registry import read_source
from pluralllm_app.survey.sources.stated import Stated
from tests.support.tables import numbered

MEANT = ["Für Köln?", "très bien élève", "don’t", "çok güzel", "Łódź – Öl", "Привет", "日本語"]
PAGES = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "mac_roman", "cp850", "cp437", "latin-1"]


def misread(text: str, page: str) -> str | None:
    try:
        return text.encode().decode(page)
    except UnicodeDecodeError:  # then nobody reads it so
        return None


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("text", MEANT)
def test_utf_8_that_was_read_as_another_page_is_told(text, page):
    assert damage(text) == ""
    wrong = misread(text, page)
    dashes = (text, page) == ("Привет", "mac_roman")  # "–ü—Ä" may be a line between words
    if wrong is not None and not dashes:
        assert "UTF-8" in damage(wrong), wrong
        twice = misread(wrong, "cp1252") if page == "cp1252" else None
        assert twice is None or "UTF-8" in damage(twice), twice


@pytest.mark.parametrize(
    "text",
    [
        *("AMANHÃ”", "“IRMÃ”?", "A MAÇÃ…", "MANHÃ–TARDE", "MÃE", "ÓRGÃOS", "IRMÃ®", "IRMÃ’S"),
        *("«passé»…", "passé…»", "DÉJÀ–VU", "CITTÀ»", "ÎLE", "Â", "Â»", "À l’école", "naïve"),
        *("Größe", "GRÖẞE", "Ärzte’", "œuvre", "iPhone", "McDonald’s", "5 °", "10 £", "100 €"),
        *("їжа", "Підʼїзд", "Сербија", "ΓΌΝΑΤΟ", "Ýmsir", "ŠÁRKA – ŽIŽKOV", "Tiếng Việt", "ÑANDÚ®"),
        *("日本語ですか？", "한국어", "हिन्दी", "a ≤ b", "√9", "→ ja", "👍🏽", "a\tb\nc\x0bd\x0ce"),
        *("C++", "a+b", "18+", "+49-171", "LGBTQ+AB-", "f?r K?ln", "~{name~}", "x ~ y"),
    ],
)
def test_honest_texts_are_no_damage(text):
    assert damage(text) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("f\ufffdr", "a character that was lost"),
        ("a\x00b", r"U\+0000"),
        ("\x1b[31mred", r"U\+001B"),
        ("l\x92avis", r"U\+0092"),
        ("a\x7fb", r"U\+007F"),
        ("お茶は".encode("iso-2022-jp").decode(), "ISO-2022-JP"),
        ("차를".encode("iso-2022-kr").decode(), "ISO-2022-KR"),
    ],
)
@pytest.mark.parametrize("column", ["question", "option", "group", "description"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_the_first_damaged_cell_is_named(tmp_path, text, fault, column, ending):
    file = tmp_path / f"mine{ending}"
    rows = numbered(["a", "b"], ["Yes", "No"])
    frame = pd.DataFrame(rows).assign(description="here")
    frame.loc[2:, column] = text
    if ending == ".csv":
        frame.to_csv(file, index=False)
    elif ending == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file)
    with pytest.raises(SurveyError, match=rf"the {column} .* in data row 3 .*{fault}.*UTF-8"):
        read_source("table", file, 0)


SEVEN_BITS = {
    "utf-7": ["Tee für Köln?", "Größe", "schön"],
    "hz": ["你喜欢茶吗", "是", "否"],
    "iso-2022-jp": ["お茶は好きですか", "はい", "いいえ"],
    "iso-2022-kr": ["차를 좋아합니까", "예", "아니요"],
}


@pytest.mark.parametrize("encoding", SEVEN_BITS)
def test_encodings_of_seven_bits_are_told_and_read_where_they_are_stated(tmp_path, encoding):
    question, *options = SEVEN_BITS[encoding]
    frame = pd.DataFrame(numbered(["a"], options)).assign(question=question)
    file = tmp_path / "mine.csv"
    file.write_bytes(frame.to_csv(index=False).encode(encoding))
    with pytest.raises(SurveyError, match="pass --encoding"):
        read_source("table", file, 0)
    survey = read_source("table", file, 0, Stated(encoding=encoding))
    assert survey.questions.options == [options]
    assert survey.questions.texts == [question]


def test_signs_of_seven_bits_are_honest_where_one_makes_no_sense(tmp_path):
    file = tmp_path / "mine.csv"
    options = ["f+APw-r", "f+APY-r", "18+"]  # nothing in UTF-7 ends in a bare plus sign
    pd.DataFrame(numbered(["a"], options)).to_csv(file, index=False)
    assert read_source("table", file, 0).questions.options == [options]


def test_other_sources_are_looked_at_as_well(tmp_path):
    file = tmp_path / "mine.csv"
    row = {"question": "Tee fÃ¼r zwei?", "selections": "{'Peru': [0.5, 0.5]}", "source": "WVS"}
    pd.DataFrame([row | {"options": "['Ja', 'Nein']"}]).to_csv(file, index=False)
    with pytest.raises(SurveyError, match="'fÃ¼r' for 'für'"):
        read_source("globalopinionqa", file, 0)


def test_what_was_published_so_is_said(tmp_path):
    file = tmp_path / "records.json"
    record = {"question": "Question: Tee f\ufffdr zwei?\nOptions: A. Ja B. Nein\nAnswer:", "id": 1}
    record |= {"options": ["Ja", "Nein"], "attribute": "SEX_Male", "gold_distribution": [0.5, 0.5]}
    file.write_text(json.dumps([record]), "utf-8")
    (line,) = doubts(read_source("opinionqa", file, 0))
    assert "a character that was lost" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ãœber 5Â°", "'Ãœber' may be 'Über' in UTF-8"),
        ("IRMÃ”", "'IRMÃ”' may be 'IRMÔ' in UTF-8"),
        ("Tea &amp; milk", "'&amp;' may stand for '&', as in HTML"),
        ("Gr&#252;n", "'&#252;' may stand for 'ü', as in HTML"),
        ("Gr\\u00fcn", "may stand for 'ü', as in JSON"),
        ("Gr=C3=BCn", "'=C3=BC' may stand for 'ü', as in quoted-printable"),
        ("Gr%C3%BCn", "'%C3%BC' may stand for 'ü', as in web addresses"),
        ("Oh \\ud83d", "may stand for '\ufffd', as in JSON"),
        ("b'No'", "may stand for 'No', as in Python's bytes"),
        ("3-May", "'3-May', may have been a range of numbers"),
        ("01. M\u00e4r", "may have been a range of numbers"),
        ("Oct-19", "may have been a range of numbers"),
        ("2024-05-03 00:00:00", "may have been a range of numbers"),
        ("3 May 1990", ""),
        ("Mar-a-Lago; 3-5; 2024-05-03", ""),
        ("R&D; Über &Co; “IRMÃ” 5=C a%C b'c' 100%", ""),
    ],
)
def test_what_may_be_honest_is_said_and_taken(tmp_path, text, said):
    file = tmp_path / "mine.csv"
    pd.DataFrame(numbered(["a"], ["Yes", text])).to_csv(file, index=False)
    lines = doubts(read_source("table", file, 0))
    assert len(lines) == bool(said)
    assert said in "".join(lines)
