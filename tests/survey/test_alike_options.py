"""Options that differ in text need different vectors, whatever the embedder."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.alike import alike_options
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey

QUESTIONS = Questions(
    ids=["tea", "bus", "sea"],
    texts=["Tea?", "Bus?", "Sea?"],
    options=[["Yes", "No"], ["Good", "Fair", "Bad"], ["Yes", "No"]],
    values=[None, None, None],
)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.float16)[:, None]


def test_equal_vectors_of_different_questions_are_no_fault():
    assert alike_options(QUESTIONS, rows(1, 2, 1, 2, 3, 1, 2), "mine") == ""


def test_few_questions_with_equal_vectors_are_named():
    warning = alike_options(QUESTIONS, rows(1, 2, 1, 2, 1, 1, 2), "mine")
    assert "1 of 3 questions" in warning
    assert "'Good' and 'Bad' of question 'bus'" in warning


def test_an_embedder_that_tells_nothing_apart_is_refused():
    with pytest.raises(SurveyError, match="'mine' cannot tell options apart: 3 of 3 question"):
        alike_options(QUESTIONS, rows(1, 1, 1, 1, 1, 1, 1), "mine")


def test_one_text_twice_is_no_fault():
    twice = Questions(["tea"], ["Tea?"], [["Yes", "Yes", "No"]], [None])
    assert alike_options(twice, rows(1, 1, 2), "mine") == ""


@pytest.fixture
def prepared(tmp_path: Path):
    def prepared(options: dict[str, list[str]]) -> tuple[PreparedSurvey, str]:
        """Prepare a table of questions with these options; return it and what was said."""
        rows = [
            (id_, "How much?", option, group, 1)
            for id_, own in options.items()
            for option in own
            for group in ("North", "South")
        ]
        file = tmp_path / "mine.csv"
        columns = ["question_id", "question", "option", "group", "count"]
        pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
        console = Console(file=io.StringIO(), width=1000)
        survey = prepare(
            "table",
            tmp_path / "out",
            file=file,
            min_questions=1,
            overwrite=True,
            console=console,
        )
        return survey, console.file.getvalue()

    return prepared


SIGNS = {
    "bounds": ["> 50 %", "< 50 %", "= 50 %", "50 %", "50"],
    "numbers": ["-1", "0", "1", "+1"],
    "dashes": ["\u20131", "1"],
    "faces": ["👍", "👎", "🤷", "👍👍"],
    "stars": ["★", "★★", "★★★"],
    "scale": ["++", "+", "o", "-", "--"],
    "languages": ["C", "C++", "C#"],
    "vowels": ["कि", "की", "के"],
    "punctuation": ["?", "!", "..."],
    "arrows": ["↑", "→", "↓"],
    "money": ["5 €", "5 $", "5 £"],
    "bounds in words": ["income ≥ 10", "income ≤ 10"],
}


def test_hashing_keeps_signs(prepared):
    survey, said = prepared(SIGNS)
    assert "Warning" not in said
    rows = survey.embeddings
    for id_, first, options in zip(
        SIGNS, survey.questions().first_rows, SIGNS.values(), strict=True
    ):
        own = {row.tobytes() for row in rows[first : first + len(options)]}
        assert len(own) == len(options), id_


def test_signs_make_an_option_another_one_but_not_a_strange_one():
    options = [["> 50 %", "< 50 %", "blue"]]
    rows = HashingEmbedder().embed(Questions(["q"], ["?"], options, [None]), Console(), Path())
    over, under, other = rows[:, 32:].astype(float)
    assert over @ under > 0.3 > other @ under


def test_texts_of_letters_digits_and_punctuation_are_as_before():
    # As computed before signs were added, so that what was trained on such texts stays valid.
    texts = [["Yes, for 2 of it.", "Don't know (5-10)"]]
    rows = HashingEmbedder(4).embed(
        Questions(["q"], ["Why, 'now'?"], texts, [None]), Console(), Path()
    )
    before = [
        [0.280517578125, -0.9599609375, -0.6376953125, 0.7705078125],
        [0.280517578125, -0.9599609375, -0.74462890625, -0.66748046875],
    ]
    np.testing.assert_array_equal(rows, before)


def test_options_that_hashing_cannot_tell_apart_are_counted(prepared):
    _, said = prepared({"case": ["Yes", "Yes!", "No"], "a": ["1", "2"], "b": ["3", "4"]})
    assert "Warning: 1 of 3 questions with options that differ in text" in said
    assert "'Yes' and 'Yes!' of question 'case'" in said
    with pytest.raises(SurveyError, match="'hashing' cannot tell options apart"):
        prepared({"case": ["Yes", "Yes!", "No"]})


def test_zero_and_its_negative_are_one_number():
    vectors = rows(1, 2, 1, 2, 3, 1, 2)
    vectors[0], vectors[1] = 0.0, -0.0
    assert "1 of 3 questions" in alike_options(QUESTIONS, vectors, "mine")
