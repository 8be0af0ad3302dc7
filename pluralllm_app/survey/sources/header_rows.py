"""Where the header of a table is: in its first row, or below rows of titles.

Spreadsheets and statistical offices write titles above a table ("Table 12: Trust in the state, by
region"). The header is the row that has the names that are looked for.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from textwrap import shorten

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.wording import many

MOST_ABOVE = 40  # rows above a header, blank ones included
LEAST_NAMES = 2  # a header below other rows has at least as many of the names
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_STATED_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')  # a first line with which Excel is told


@dataclass(frozen=True)
class Header:
    """The names of a table's columns."""

    above: int  # rows up to the header, itself included
    names: Sequence[str]
    separator: str = ","  # of separated text
    titles: Sequence[str] = ()  # what stands above it, a text for each row that is not blank

    def notes(self) -> list[str]:
        """Return what was left out above the header, if anything was."""
        if not self.titles:
            return []
        title = shorten(self.titles[0], 60, placeholder=" ...")
        return [f"{many(len(self.titles), 'row')} above the header left out, the first {title!r}"]


def find_header(rows: Iterable[Header], names: Sequence[str]) -> Header:
    """Return the header of a table.

    Args:
        rows: the first rows that are not blank, each as if it were the header, without titles.
        names: what columns may be called.

    Returns:
        The row with most of `names`, if it has LEAST_NAMES, or else the first of several cells.
    """
    found = list(rows)
    if not found:
        return Header(0, ())
    header = max(found, key=lambda row: known(row.names, names))  # the first of equal ones
    if known(header.names, names) < LEAST_NAMES:
        header = next((row for row in found if len(_filled(row)) > 1), found[0])
    titles = [f"{row.separator} ".join(_filled(row)) for row in found if row.above < header.above]
    return replace(header, titles=titles)


def find_text_header(lines: Iterable[str], names: Sequence[str]) -> Header:
    """Return the header of separated text, of which columns may be called `names`."""
    first = islice(enumerate(lines, 1), MOST_ABOVE)
    texts = [(number, line.removeprefix("\ufeff")) for number, line in first if _says(line)]
    separators = list(SEPARATORS)
    if texts and (stated := _STATED_SEPARATOR.fullmatch(texts[0][1])):
        separators = [stated[1]]
        del texts[0]
    return find_header(
        [
            max(
                (Header(number, _cells(line, own), separator=own) for own in separators),
                key=lambda row: (known(row.names, names), len(row.names)),
            )
            for number, line in texts
        ],
        names,
    )


def known(row: Sequence[str], names: Sequence[str]) -> int:
    """Return how many of `names` a row has."""
    return sum(bool(places_of(name, row)) for name in names)


def places_of(column: str, names: Sequence[str]) -> list[int]:
    """Return where `column` is among `names`, however it is capitalised."""
    wanted = column.casefold()
    return [at for at, name in enumerate(names) if clean_text(name).casefold() == wanted]


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a cell of 131,072 characters is no name
        return []


def _says(line: str) -> bool:
    """Whether a line has more than spaces and separators."""
    return bool(line.strip('\ufeff\r\n\t ,;|"'))


def _filled(row: Header) -> list[str]:
    return list(filter(None, map(clean_text, row.names)))
