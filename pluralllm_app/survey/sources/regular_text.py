"""Separated text whose rows are all of one length and in UTF-8, read by pyarrow.

It is several times as fast as Python's own reader, but forgives what may be a mistake: it passes
over blank rows without counting them, and a quotation mark left open takes in all that follows, as
does one with a backslash before it. So it only reads files in which there is nothing to forgive.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from pluralllm_app.survey.sources.unpacking import open_binary

BLOCK = 2**22  # bytes read at a time, which a row must fit into; with less of them it takes longer


def is_regular(file: Path, separator: str, lines: int, width: int) -> bool:
    """Whether each row below the first `lines` has `width` > 1 cells, and quotation marks match."""
    spaced, escaped, marks, end = f'{separator} "'.encode(), b'\\"', 0, b""
    with open_binary(file) as stream:
        while chunk := stream.read(BLOCK):
            joined = end + chunk
            # The first: a cell whose quotation marks pyarrow would take for text.
            if spaced in joined or escaped in joined:
                return False
            marks += chunk.count(b'"')
            end = chunk[-len(spaced) :]
    if marks % 2 or width < 2:
        return False
    names = [str(place) for place in range(width)]
    try:
        for _ in _batches(file, separator, lines, names, {names[0]: pa.string()}):
            pass
    except pa.ArrowInvalid:
        return False
    return True


def read_regular(
    file: Path,
    separator: str,
    lines: int,
    width: int,
    found: Mapping[str, int],
    repeating: Sequence[str],
) -> Iterator[pd.DataFrame]:
    """Yield frames of the columns `found`, of which the `repeating` ones come as categories.

    Args:
        lines: how many lines there are up to the header.
        width: of the header, in cells.
        found: the place of each column.
    """
    names = [str(place) for place in range(width)]
    text = pa.string()
    types = {
        names[at]: pa.dictionary(pa.int32(), text) if name in repeating else text
        for name, at in found.items()
    }
    for batch in _batches(file, separator, lines, names, types):
        frame = batch.to_pandas()
        yield pd.DataFrame({name: frame[names[at]] for name, at in found.items()}, copy=False)


def _batches(
    file: Path, separator: str, lines: int, names: list[str], types: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    with open_binary(file) as stream:
        yield from csv.open_csv(
            stream,
            csv.ReadOptions(block_size=BLOCK, skip_rows=lines, column_names=names),
            csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, ignore_empty_lines=False
            ),
            csv.ConvertOptions(include_columns=list(types), column_types=dict(types)),
        )
