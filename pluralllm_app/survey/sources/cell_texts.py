"""The text of a table's cell, whatever its type: one text for one number."""

import math
import re
from decimal import Decimal

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text

# Not "01": with zeros in front it is a code, such as that of a place, and stays as it is.
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")


def cell_text(cell: object) -> str:
    """Return the clean text of a cell that is no list or object; "" if it is missing.

    A whole number has no decimals. Whether a file holds it as 1 or as 1.0 depends on what else
    happens to be in the column.

    >>> [cell_text(cell) for cell in (1, 1.0, "1.0", 3.5, "007", " Yes ", None)]
    ['1', '1', '1', '3.5', '007', 'Yes', '']
    """
    if isinstance(cell, str):
        text = clean_text(cell)
        whole = _WHOLE.fullmatch(text)
        return text if whole is None else whole[1].replace("-0", "0")
    if isinstance(cell, float | np.floating | Decimal):
        return _number_text(cell)
    return "" if pd.isna(cell) else clean_text(str(cell))  # type: ignore[call-overload]


def _number_text(number: "float | np.floating | Decimal") -> str:
    if math.isnan(number):
        return ""
    if math.isfinite(number) and number == int(number):
        return str(int(number))
    return f"{number.normalize():f}" if isinstance(number, Decimal) else str(number)
