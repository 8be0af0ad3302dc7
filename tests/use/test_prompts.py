"""A question as a prompt, and what a completion is read as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app import Question
from pluralllm_app.errors import AnswersError
from pluralllm_app.use.prompts import chosen, labels, named_options, read_prompt, rendered

LIBRARIES = Question("Should libraries open on Sundays?", ["Yes, all day", "Only at noon", "No"])


def test_a_prompt_has_the_question_and_its_options_by_letter() -> None:
    assert rendered(LIBRARIES) == (
        "Question: Should libraries open on Sundays?\n"
        "A. Yes, all day\n"
        "B. Only at noon\n"
        "C. No\n"
        "Answer with the letter of one option.\n"
        "Answer:"
    )


def test_letters_go_on_after_z() -> None:
    assert [labels(703)[place] for place in (0, 25, 26, 51, 52, 701, 702)] == (
        ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]
    )


def test_a_question_that_cannot_be_asked_has_no_prompt() -> None:
    with pytest.raises(AnswersError, match="at least two"):
        rendered(Question("Why?", ["Because"]))


TEXTS = st.text(min_size=1, max_size=30).filter(lambda text: Question(text, ()).text != "")


@given(TEXTS, st.lists(TEXTS, min_size=2, max_size=30))
def test_a_prompt_is_read_as_the_question_that_it_asks(text: str, options: list[str]) -> None:
    question = Question(text, options)
    try:
        prompt = rendered(question)
    except AnswersError:  # options that are alike
        return
    assert read_prompt(prompt) == question
    around = f"<|im_start|>user\nYou are from the hills.\n{prompt}<|im_end|>\n<|im_start|>assistant"
    assert read_prompt(around) == question


def test_the_last_question_of_a_prompt_counts() -> None:
    example = rendered(Question("Do you like tea?", ["Yes", "No"])) + " A\n\n"
    assert read_prompt(example + rendered(LIBRARIES)) == LIBRARIES


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Should libraries open on Sundays?",
        "Question: Why?\nA. Because\nAnswer with the letter of one option.\nAnswer:",
        "Question: Why?\nA. One\nC. Two\nAnswer with the letter of one option.\nAnswer:",
        "Question: Why?\nA. One\nB. Two\nAnswer:",
    ],
)
def test_a_prompt_of_another_form_asks_no_question(prompt: str) -> None:
    assert read_prompt(prompt) is None


@pytest.mark.parametrize(
    "completion",
    [
        *("B", " b\n", "B.", "(B)", "b)", "**B**", '"B"', "B. Only at noon", "(B) only at noon."),
        *("Only at noon", "ONLY AT NOON!", "Answer: B", "The answer is B.", "My answer is: (B)"),
        *("Option B", "The final answer is option B", "B\nB. Only at noon", "I wonder.\nB"),
        *("<think>A? C? No.\nA</think>\nB", "B\n\nBecause Sundays are quiet."),
    ],
)
def test_a_completion_that_names_one_option(completion: str) -> None:
    assert chosen(completion, LIBRARIES) == 1


@pytest.mark.parametrize(
    ("completion", "named"),
    [
        ("", []),
        (" \n\t", []),
        ("D", []),
        ("\u0412", []),  # Cyrillic, which looks like B
        ("\u5728\u4e2d\u5348", []),
        ("Perhaps", []),
        ("B is what I would never say", []),
        ("A. Only at noon", []),  # letter and text contradict each other
        ("Neither A nor B", []),
        ("<think>B", []),
        ("Answer:", []),
        ("A or B", [0, 1]),
        ("A, B and C", [0, 1, 2]),
        ("Only at noon / No", [1, 2]),
        ("A\nB", [0, 1]),
        ("A. Yes, all day\nB. Only at noon\nC. No", [0, 1, 2]),
    ],
)
def test_a_completion_that_names_no_option_or_several(completion: str, named: list[int]) -> None:
    assert named_options(completion, LIBRARIES) == named
    assert chosen(completion, LIBRARIES) is None


def test_another_script() -> None:
    question = Question(
        "\u0644\u0645\u0627\u0630\u0627\u061f", ["\u0646\u0639\u0645", "\u0644\u0627"]
    )
    assert chosen("\u0644\u0627.", question) == 1
    assert chosen("A. \u0646\u0639\u0645", question) == 0


def test_an_option_that_is_another_ones_letter_is_ambiguous() -> None:
    question = Question("Which grade?", ["B", "A"])
    assert named_options("B", question) == [0, 1]
    assert chosen("A. B", question) == 0


def test_options_that_differ_by_punctuation_are_told_apart_as_they_stand() -> None:
    question = Question("Well?", ["Yes", "Yes!"])
    assert chosen("Yes!", question) == 1
    assert named_options("yes.", question) == [0, 1]


def test_a_completion_of_a_megabyte_names_nothing() -> None:
    assert named_options("B\n" * 500_000, LIBRARIES) == []
    assert chosen("<think>" + "A\n" * 500_000 + "</think>B", LIBRARIES) == 1
