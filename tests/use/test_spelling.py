"""Which names of questions are misspelt ones of a survey, and which are new ones."""

import pytest

from pluralllm_app.survey.content import Questions
from pluralllm_app.use.questions import Catalogue

TEXTS = [
    "Do you have a favorable opinion of Iraq?",
    "Do you have a favorable opinion of Austria?",
    "Is the economy in good shape?",
    "How much do you trust the health care system of 2018?",
    "Abortion",
]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    count = len(TEXTS)
    ids = ["W12_Q3", "W12_Q4", "econ1", "trust", "abort"]
    return Catalogue(Questions(ids, TEXTS, [("Yes", "No")] * count, [None] * count))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Do you have a favourable opinion of Iraq?", TEXTS[0]),
        ("do you have a favorabel opinion of iraq", TEXTS[0]),
        ("Is the econmy in good shape?", TEXTS[2]),
        ("Is theeconomy in good shape?", TEXTS[2]),
        ("How much do you trust the healthcare sytem of 2018?", TEXTS[3]),
        ("Abotion", TEXTS[4]),
        ("W12_Q33", "W12_Q3"),
        ("ECON", "econ1"),
    ],
)
def test_misspelt(catalogue: Catalogue, typed: str, meant: str) -> None:
    assert catalogue.find(typed, None, []) is None
    assert catalogue.misspelt(typed) == meant


@pytest.mark.parametrize(
    "text",
    [
        "Do you have a favorable opinion of Iran?",
        "Do you have a favorable opinion of Peru?",
        "Do you not have a favorable opinion of Iraq?",
        "Is the economy in bad shape?",
        "How much do you trust the health care system of 2019?",
        "Is the economy of the country in good shape?",
        "Tea or coffee?",
        "V777",
        "",
    ],
)
def test_another_word_or_number_asks_something_else(catalogue: Catalogue, text: str) -> None:
    assert catalogue.misspelt(text) is None
