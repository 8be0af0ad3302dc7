"""What a file of SPSS, Stata or another kind says of its variables, and codes as texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pluralllm_app.core.segments import Ints
from pluralllm_app.survey.sources.cell_texts import cell_text

MISSING = "missing"  # in a map: the cell holds nothing, which SPSS calls system-missing
Coded = tuple[Ints, list[str]]  # of each row the place of its code among the codes, -1: missing


@dataclass(frozen=True)
class Variable:
    """A column of the file."""

    name: str
    label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # by code
    missing: Sequence[str] = ()  # codes that the file declares to be no answers
    ranges: Sequence[tuple[float, float]] = ()  # of codes that it declares so, ends included
    measure: str = "unknown"  # nominal, ordinal, scale or unknown

    def is_missing(self, code: str) -> bool:
        """Whether the file declares a code to be no answer."""
        if code in self.missing:
            return True
        number = number_of(code)
        return number is not None and any(low <= number <= high for low, high in self.ranges)


@dataclass(frozen=True)
class MultipleSet:
    """Variables that are one question of which several options may be picked."""

    name: str
    label: str
    variables: Sequence[str]
    chosen: str | None  # the code of a picked option; None: each variable holds an option's code
    options: Mapping[str, str] = field(default_factory=dict)  # of variables, where not their labels


@dataclass(frozen=True)
class Dictionary:
    """The variables of a file, by name."""

    variables: Mapping[str, Variable]
    sets: Sequence[MultipleSet] = ()


def number_of(code: str) -> float | None:
    """Return a code as a number, None if it is none."""
    try:
        number = float(code)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def coded(column: pd.Series) -> Coded:
    """Return the codes of a column as texts: 1 for 1.0, .d for Stata's missing value of that name.

    >>> coded(pd.Series([1.0, 2.5, None, 1.0]))
    (array([ 0,  1, -1,  0]), ['1', '2.5'])
    """
    places, different = pd.factorize(column)
    texts = [cell_text(cell) for cell in different]
    # Two cells may have one text, as 1 and "1.0" in a column of texts, and "" is no code.
    known = {text: at for at, text in enumerate(dict.fromkeys(text for text in texts if text))}
    # The last one stands for -1, which is a missing cell.
    of = np.array([*(known.get(text, -1) for text in texts), -1], np.int64)
    return of[places], list(known)
