"""What the libraries that read files warn of is an error, unless it is of nothing that is read."""

import re
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")
# openpyxl warns of much that is no cell, such as styles, print areas and validation of input.
_CELL = r"Cell (\w+) is marked as a date but the serial value (\S+) is outside the limits"


def without_warnings(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield what `frames` yields; warnings elsewhere in the program stay as they are.

    Raises:
        ValueError: a library doubts what it reads.
    """
    remaining = iter(frames)
    while True:
        with warnings.catch_warnings():
            for of_programs in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", of_programs)
            for of_data in (UserWarning, RuntimeWarning):
                warnings.simplefilter("error", of_data)
            warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
            warnings.filterwarnings("error", _CELL, UserWarning, "openpyxl")
            try:
                frame = next(remaining)
            except StopIteration:
                return
            except (UserWarning, RuntimeWarning) as doubt:
                raise ValueError(_sentence(str(doubt))) from doubt
        yield frame


def _sentence(doubt: str) -> str:
    if cell := re.match(_CELL, doubt):
        return (
            f"cell {cell[1]} of the workbook has the format of a date and holds {cell[2]}, which "
            "is none: format its column as numbers or as text"
        )
    return f"the library that reads it says {doubt!r}: mend the file, or save it as CSV"
