"""Rows of a table that count a whole answer, such as "Total", where options are expected.

Crosstabs have such rows. As an option, a total would be half of every answer, in silence.
"""

import re
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints, segment_starts
from pluralllm_app.survey.content import Questions

_NAMES = (
    "total totals totale totaal totalt sum summe gesamt insgesamt gesamtsumme basis base n suma "
    "ogółem celkem razem összesen ensemble somme soma всего итого toplam "
    "\u5408\u8ba1 \u603b\u8ba1 \u5408\u8a08 \u7dcf\u8a08 \uc804\uccb4 \ud569\uacc4"
)
_NAMES_OF_BOTH = "all alle todos todas tous tutti все"  # of totals and of options
_WORD = re.compile(r"\W*(\w+)\W*n?\W*")  # Base (n=)
# In how many answers an option has to be the sum of the others: one that is called a total, one
# whose name is also that of options, and one with any name. Some answers are so by chance.
_FEWEST = {"total": 2, "either": 5, "": 20}
_EXACT = 1e-9  # of a sum
_ROUNDED = 0.02  # of a sum, at most, where sums of weights were rounded


@dataclass(frozen=True)
class Total:
    """An option that is the sum of the others of its question in every answer."""

    option: str
    answer: int  # the first in which it is


def find_total(
    questions: Questions, question: Ints, counts: Doubles, sums: Doubles
) -> Total | None:
    """Return the first option that is surely a total, None if there is none.

    Args:
        questions: Q of them.
        question: [A] of each answer.
        counts: flat, of the options of each answer.
        sums: [A] of the counts.
    """
    lengths = questions.counts[question]
    starts = segment_starts(lengths)
    named = np.array([sum(map(_is_total, own)) for own in questions.options], np.int64)[question]
    tops = np.maximum.reduceat(counts, starts)
    tolerance = np.where(named > 0, np.minimum(lengths / 2, _ROUNDED * sums), _EXACT * sums)
    whole = np.abs((np.maximum(named, 1) + 1) * tops - sums) <= tolerance
    asked = sums > 0
    never = np.bincount(question[asked & ~whole], minlength=len(questions)) == 0
    answers: dict[str, list[int]] = {}  # by option: where it is the sum of the others
    for answer in np.flatnonzero(asked & never[question]).tolist():
        own = counts[starts[answer] : starts[answer] + lengths[answer]]
        for option, count in zip(questions.options[question[answer]], own, strict=True):
            named_so = _is_total(option) or not named[answer]
            if named_so and abs(count - tops[answer]) <= tolerance[answer]:
                answers.setdefault(option, []).append(answer)
    if not answers:
        return None
    others = {
        option
        for own, is_never in zip(questions.options, never, strict=True)
        if not is_never
        for option in own
    }
    for option, found in answers.items():
        kind = _kind(option)
        if len(found) >= _FEWEST[kind] and (kind == "total" or option not in others):
            return Total(option, found[0])
    return None


def _is_total(option: str) -> bool:
    return bool(_kind(option))


def _kind(option: str) -> str:
    """Return "total" or "either" if an option is called so, as Total, ALL or Base (n=)."""
    word = _WORD.fullmatch(option.casefold())
    if word is None:
        return ""
    if word[1] in _NAMES.split():
        return "total"
    return "either" if word[1] in _NAMES_OF_BOTH.split() else ""
