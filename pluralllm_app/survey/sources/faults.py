"""Which rows of a table have which fault."""

from collections.abc import Hashable
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd

from pluralllm_app.core.segments import Bools
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.cell_texts import cell_text


class Faults:
    """Collects which rows of a table have which fault."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, tuple[int, str]] = {}  # number of rows, and where the first is

    def note(
        self, fault: str, wrong: Bools, index: pd.Index, cells: pd.Series | None = None
    ) -> None:
        """Note the rows of a batch [n] that have a fault, and the cell that shows it, if any."""
        places = np.flatnonzero(wrong)
        # Noted even if there are none, so that faults are reported in the order of the checks.
        count, first = self._found.get(fault, (0, ""))
        if len(places) and not count:
            first = f"data row {index[int(places[0])] + 1}"
            if cells is not None:
                cell = cells.iloc[places[0]]
                empty = isinstance(cell, Hashable) and not cell_text(cell)
                first += " with an empty cell" if empty else f" with {shorten(repr(cell), 80)}"
        self._found[fault] = (count + len(places), first)

    def refuse(self) -> None:
        """Raise SurveyError if any row has a fault."""
        for fault, (count, first) in self._found.items():
            if count:
                raise SurveyError(
                    f"{self._file}: rows that {fault}: {count}, the first is {first} "
                    "(counted from 1 below the header)"
                )
