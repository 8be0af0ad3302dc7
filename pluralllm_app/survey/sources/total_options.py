"""Rows of a table that count a whole answer, such as "Total", where options are expected.

Crosstabs have such rows. As an option, a total would be half of every answer, in silence.
"""

import re
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints, segment_starts
from pluralllm_app.survey.content import Questions

_NAMES = {
    "total": "total totals totale totaal totalt gesamt insgesamt gesamtsumme summe basis base suma "
    "ogółem celkem razem összesen sum somme soma всего итого toplam "
    "\u5408\u8ba1 \u603b\u8ba1 \u5408\u8a08 \u7dcf\u8a08 \uc804\uccb4 \ud569\uacc4",
    # Options have these names as well: all of them; n for no; together.
    "all": "all alle todos todas tous tutti все",
    "either": "n ensemble",
}
_OTHER_WORDS = (  # in such names: weighted base, all respondents
    "grand weighted unweighted sample size count number of the respondents people persons "
    "responses answers gewichtet gewichtete ungewichtet ungewichtete befragte befragten"
)
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_WORD = re.compile(r"\w+")
# In how many answers an option of each kind has to be the sum of the others: some are by chance.
# With any name, a survey may be made so, by quotas; there it is only said.
_FEWEST = {"total": 1, "all": 2, "either": 5, "": 20}
_EXACT = 1e-9  # of a sum
_ROUNDED = 0.02  # of a sum, at most, where sums of weights were rounded


@dataclass(frozen=True)
class Total:
    """An option that is the sum of the others, wherever anybody is counted in it."""

    option: str
    answer: int  # the first in which it is
    sure: bool  # whether it is called so


def find_total(
    questions: Questions, question: Ints, counts: Doubles, sums: Doubles
) -> Total | None:
    """Return the first option that is a total, None if there is none.

    Args:
        questions: Q of them.
        question: [A] of each answer.
        counts: flat, of the options of each answer.
        sums: [A] of the counts.
    """
    lengths = questions.counts[question]
    starts = segment_starts(lengths)
    kinds = [[*map(_kind, own)] for own in questions.options]
    named = np.array([sum(map(bool, own)) for own in kinds], np.int64)[question]
    rounded = np.array(["total" in own for own in kinds])[question]
    tops = np.maximum.reduceat(counts, starts)
    tolerance = np.where(rounded, np.minimum(lengths / 2, _ROUNDED * sums), _EXACT * sums)
    whole = np.abs((np.maximum(named, 1) + 1) * tops - sums) <= tolerance
    asked = sums > 0
    for answer in np.flatnonzero(asked & ~whole & (named > 0)).tolist():
        own = counts[starts[answer] : starts[answer] + lengths[answer]]
        asked[answer] = any(
            kind and count
            for kind, count in zip(kinds[question[answer]], own.tolist(), strict=True)
        )
    never = np.bincount(question[asked & ~whole], minlength=len(questions)) == 0
    answers: dict[str, list[int]] = {}  # by option: where it is the sum of the others
    for answer in np.flatnonzero(asked & never[question]).tolist():
        number = question[answer]
        own = counts[starts[answer] : starts[answer] + lengths[answer]]
        several = (own > 0).sum() - max(1, named[answer]) > 1  # of two options, one may be half
        for option, kind, count in zip(
            questions.options[number], kinds[number], own.tolist(), strict=True
        ):
            is_top = abs(count - tops[answer]) <= tolerance[answer]
            if is_top and (kind == "total" or (several and (kind or not named[answer]))):
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
            return Total(option, found[0], sure=bool(kind))
    return None


def names_a_total(name: str) -> bool:
    """Whether a name is that of totals alone, as Total or Base (n=); not All, or N for no."""
    return _kind(name) == "total"


def _kind(option: str) -> str:
    """Return which of the names of totals an option has, as Total, ALL or Base (n=); "" if none."""
    words = _WORD.findall(option.casefold())
    found = {_KINDS[word] for word in words if word in _KINDS}
    if not all(word in _KINDS or word in _OTHER_WORDS.split() for word in words):
        return ""
    return next((kind for kind in _NAMES if kind in found), "")
