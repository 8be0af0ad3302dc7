# ruff: noqa: RUF001 (letters of many scripts)
"""Texts that are not in UTF-8 are read rightly or refused, and never read as other words."""

import re
from pathlib import Path

import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_table
from tests.support.tables import PLAIN, numbered, same


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


@pytest.mark.parametrize(
    "text",
    [
        "Faut-il dépenser plus ? très d'accord plutôt ça Rhône-Alpes préférence à l'école où",
        "¿Debería gastar más? Sí, mañana, España, razón, según",
        "Não sei, educação, opinião, é, São Paulo, três",
        "Bör staten lägga mer på miljö? Skåne Östergötland på Ångström",
        "Ved ikke, Sjælland, Færøerne, på, Århus",
        "Köln",
        "für",
        "weiß",
        "Übung Käse",
        "München, Grün",
        "Größe für Köln, weiß nicht \u201eja\u201c \u2013 50 €",
    ],
)
def test_western_languages_are_read_by_their_letters(tmp_path, text):
    file = tmp_path / "mine.csv"
    frame = pd.DataFrame(numbered(["a", "b"], ["Yes", "No"])).replace({"Yes": text})
    file.write_bytes(frame.to_csv(sep=";").encode("cp1252"))
    survey = read_table(file)
    assert survey.questions.options[0] == [text, "No"]
    assert "Windows-1252" in survey.note


def test_two_languages_are_not_taken_for_a_third(tmp_path):
    # French with a Swedish name: all of its letters are Slovak ones in Windows-1250.
    file = tmp_path / "mine.csv"
    frame = pd.DataFrame(numbered(["a", "b"], ["très, là, été", "Åland, på"]))
    file.write_bytes(frame.to_csv().encode("cp1252"))
    assert "--encoding" in refusal(file)


GERMAN = ("Soll der Staat mehr für die Umwelt ausgeben?", "sehr dafür", "nicht dafür")
FRENCH = ("Faut-il dépenser plus pour l'école ?", "très favorable", "pas d'avis")
CZECH = ("Má stát vydávat více peněz na školy? Není mi jasné, jak.", "ano", "ne")
ENGLISH = ("Should the state spend more?", "Yes", "No")


def table(question: str, *options: str, groups: tuple[str, ...]) -> str:
    lines = [f'q1,"{question}","{option}",{group},3' for group in groups for option in options]
    return "\n".join(["question_id,question,option,group,count", *lines, ""])


@pytest.mark.parametrize(
    ("texts", "groups", "page"),
    [
        # In Windows-1252 they are "Plzeò", which with "ü" is Catalan; "Mikulèice" is French with
        # it, "Gdañsk" Spanish, and "Gyõr" Estonian.
        *((texts, ("Zürich", "Plzeň"), "cp1250") for texts in (ENGLISH, GERMAN)),
        *((ENGLISH, ("Zürich", name), "cp1250") for name in ("Mikulčice", "Gdańsk", "Győr")),
        (ENGLISH, ("Málaga", "Plzeň"), "cp1250"),
        (GERMAN, ("Köln", "Plzeň", "Mělník", "Děčín"), "cp1250"),
        (GERMAN, ("Zürich", "Genève"), "cp1252"),  # "Genčve" would be as likely
        (ENGLISH, ("Malmö", "Rīga"), "cp1257"),
    ],
)
def test_two_languages_are_refused_where_another_page_gives_one(tmp_path, texts, groups, page):
    file = tmp_path / "mine.csv"
    file.write_bytes(table(*texts, groups=groups).encode(page))
    assert re.search(rf"mine\.csv .* its line \d+ may .*'.+' \({page}\).*--encoding", refusal(file))
    survey = read_table(file, Stated(encoding=page))
    assert sorted(survey.answers.groups) == sorted(groups)


@pytest.mark.parametrize(
    ("texts", "groups", "page"),
    [
        *((texts, ("Köln", "Zürich"), "cp1252") for texts in (GERMAN, ENGLISH)),
        *((texts, ("Île-de-France", "Rhône"), "cp1252") for texts in (FRENCH, ENGLISH)),
        (FRENCH, ("Genève", "Besançon", "Orléans", "Mâcon"), "cp1252"),
        (GERMAN, ("Köln", "Łódź"), "cp1250"),  # "£ód\x9f" is no word
        (CZECH, ("Zürich", "Plzeň"), "cp1250"),
        *((GERMAN, ("Köln", "Zürich"), page) for page in ("mac_roman", "cp850", "cp1250")),
        (FRENCH, ("Genève", "Besançon"), "mac_roman"),
    ],
)
def test_words_of_the_language_decide(tmp_path, texts, groups, page):
    file = tmp_path / "mine.csv"
    file.write_bytes(table(*texts, groups=groups).encode(page))
    survey = read_table(file)
    assert survey.questions.texts == [texts[0]]
    assert sorted(survey.answers.groups) == sorted(groups)


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
