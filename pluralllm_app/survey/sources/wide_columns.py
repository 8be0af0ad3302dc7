"""Columns of a wide table that hold no answers: bases, means, years, numbers of rows, remarks.

As a group or an option, such a column would be read in silence, and an option would take part of
every share beside it.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pluralllm_app.core.segments import Bools, Doubles
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.total_options import names_a_total

FEWEST = 5  # rows in which a column has to show what it is; in fewer it may do so by chance
NEAR = 0.02  # of their whole, by which shares that were rounded miss it
_NUMBERED = "it numbers the rows"


def foreign_name(name: str, cells: pd.Series) -> str:
    """Return why a column can have no numbers of people or shares, by its name and texts; or ""."""
    if names_a_total(name):
        return "it is called as totals are"
    texts = [text for text in map(cell_text, cells) if text]
    numbers = any(character.isdecimal() for text in texts for character in text)
    return "" if numbers or not texts else f"it has remarks, as {texts[0][:40]!r}"


def foreign_numbers(amounts: Doubles, cells: pd.DataFrame, what: str) -> Iterator[tuple[str, str]]:
    """Yield columns that hold no shares or counts by their numbers, each with the reason.

    Args:
        amounts: [n] of the cells that are not empty.
        cells: [n] with their `question_id` and the column that they are in, as `what`; the index
            has the rows.
        what: "group" or "option".
    """
    places = pd.MultiIndex.from_arrays([cells.index, cells[what]])
    table = pd.Series(amounts, places).unstack()
    if len(table) < FEWEST:
        return
    whole = [name for name in table.columns if table[name].notna().all()]
    up = [name for name in whole if (np.diff(table[name]) == 1).all()]
    if what == "group":
        question = cells["question_id"].map(cell_text).groupby(level=0).first()
        own = table.groupby(question.tolist())
        alike, wholes = own.nunique() == 1, own.sum()
        near = {name: _near(wholes[name]) for name in table.columns}
        for name in up:
            if not near[name].all():
                yield name, _NUMBERED
        flat = [name for name in near if alike[name].all() and not near[name].any()]
        for name in flat if len(flat) < len(near) else ():
            yield name, "it has the same number for each option of every question"
        return
    sums = table.sum(axis=1)
    for name in up if not _near(sums).all() else ():
        yield name, _NUMBERED
    for name in whole:
        rest = sums - table[name]
        for one in (1, 100):
            if (np.abs(rest - one) <= NEAR * one).all() and (
                np.abs(rest - one).max() < np.abs(sums - one).min()
            ):
                yield name, f"the others sum to {one} without it"
        if table[name].between(1900, 2100).all() and (table[name] % 1 == 0).all():
            yield name, "it has years"


def _near(sums: pd.Series) -> Bools:
    found: Bools = np.abs(sums / 100 - 1).le(NEAR) | np.abs(sums - 1).le(NEAR)
    return found
