"""Labels of codes that are no answers, in the words of several languages."""

# ruff: noqa: RUF001 (letters that look like Latin ones)

import pytest

from pluralllm_app.survey.microdata.profiles import load_profile


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("Weiß nicht", "don't know"),
        ("KEINE ANGABE", "no answer"),
        ("Entfällt", "not asked"),
        ("Ne sait pas", "don't know"),
        ("Refus", "refused"),
        ("No sé", "don't know"),
        ("NS/NC", "don't know"),
        ("Prefiero no contestar", "refused"),
        ("Não sabe / Não responde", "don't know"),
        ("Não se aplica", "not asked"),
        ("Non sa o non risponde", "don't know"),
        ("Weet niet of geen antwoord", "don't know"),
        ("Trudno powiedzieć", "don't know"),
        ("Vill ej svara", "refused"),
        ("Bilmiyor veya cevap yok", "don't know"),
        ("BİLMİYOR VEYA YANIT YOK", "don't know"),
        ("لا أعرف", "don't know"),
        ("رفض الإجابة", "refused"),
        ("Затрудняюсь ответить", "don't know"),
        ("ОТКАЗ ОТ ОТВЕТА", "refused"),
        ("不知道（不读出）", "don't know"),
        ("拒絕回答", "refused"),
        ("わからない・無回答", "don't know"),
        ("모르겠다", "don't know"),
        ("98. 무응답", "no answer"),
        ("Δεν γνωρίζω", "don't know"),
    ],
)
def test_no_answers_are_known_in_many_languages(label: str, reason: str) -> None:
    assert load_profile(None).reason("8", label) == reason


@pytest.mark.parametrize(
    "label",
    [
        "Trifft nicht zu",  # the end of a scale
        "Trifft überhaupt nicht zu",
        "Declined",  # beside "Improved"
        "Sans opinion",
        "Nie",  # never
        "No",
        "Ne sait pas lire",
        "該当なし",  # none of these
        "О другом не знаю",
        "ou",
    ],
)
def test_what_may_be_an_answer_stays_one(label: str) -> None:
    assert load_profile(None).reason("8", label) == ""


@pytest.mark.parametrize(
    ("label", "box"),
    [("Hayır", "empty"), ("HAYIR", "empty"), ("EVET", "ticked"), ("はい", "ticked"), ("Ne", "")],
)
def test_what_a_box_says_is_known_in_many_languages(label: str, box: str) -> None:
    assert load_profile(None).box(label) == box
