"""Rows of a table that hold no answers but the number of people asked, or a mean.

Crosstabs have such rows among percentages, which with them look like counts. As an option, a base
would be nearly all of every answer, in silence.
"""

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.sources.total_options import names_a_total

FEWEST = 5  # answers in which such an option must be seen, if its name says nothing
LEAST = 30  # people, if its name says nothing: fewer are rather those who picked an option
NEAR = 0.02  # of the whole, by which shares that were rounded miss it
PART = 2**11  # answers looked at in one step


def find_base(
    questions: Questions, question: Ints, counts: Doubles, sums: Doubles
) -> tuple[str, int] | None:
    """Return an option without which answers sum to 1 or 100, wherever anybody is counted in it.

    Args:
        questions: Q of them.
        question: [A] of each answer.
        counts: flat, of the options of each answer.
        sums: [A] of the counts.

    Returns:
        The option and the first answer with it; None if there is none.
    """
    texts = {own: None for options in questions.options for own in options}
    numbers = {text: number for number, text in enumerate(texts)}
    called = np.array([names_a_total(text) for text in texts], bool)
    options = np.array([numbers[own] for some in questions.options for own in some], np.int64)
    starts = segment_starts(questions.counts)
    asked, seen = np.zeros((2, len(texts)), np.int64)
    first: dict[int, int] = {}
    begin = 0
    for start in range(0, len(question), PART):
        part = question[start : start + PART]
        lengths = questions.counts[part]
        size = int(lengths.sum())
        own, whole = counts[begin : begin + size], sums[start : start + len(part)]
        begin += size
        answer = np.repeat(np.arange(len(part)), lengths)
        place = np.arange(size) - segment_starts(lengths)[answer]
        option = options[starts[part][answer] + place]
        broken = np.bincount(answer[own % 1 > 0], minlength=len(part)) > 0
        near = (own > 0) & _near(whole[answer] - own, broken[answer])
        near &= ~_near(whole, broken)[answer]
        near &= called[option] | (own >= LEAST) | (own % 1 > 0)
        asked += np.bincount(option[own > 0], minlength=len(texts))
        seen += np.bincount(option[near], minlength=len(texts))
        for number, at in zip(*np.unique(option[near], return_index=True), strict=True):
            first.setdefault(int(number), start + int(answer[np.flatnonzero(near)[at]]))
    for text, number in numbers.items():
        enough = 1 if called[number] else FEWEST
        if seen[number] == asked[number] >= enough:
            return text, first[number]
    return None


def _near(sums: Doubles, broken: Bools) -> Bools:
    """Whether shares may have these sums; `broken` are those of numbers that are not all whole."""
    near: Bools = (broken & (np.abs(sums - 1) <= NEAR)) | (np.abs(sums - 100) <= 100 * NEAR)
    return near
