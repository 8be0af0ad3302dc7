"""What the pages of a Parquet file hold, by their own headers.

The footer of a file sums them up, but its word is not enough: a reader unpacks as many values as
the header of a page says. The headers are structs of Thrift's compact protocol, see
parquet.thrift of apache/parquet-format.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Bytes = bytes | memoryview | mmap
_PREFIXES = 7  # DELTA_BYTE_ARRAY: each text as what it has of its own behind that of the one before
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # the fields of a header that say what a page holds
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_WHOLE = (4, 5, 6)
_CODECS = ("SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4_RAW")


_NUMBER = 8  # bytes of a number
MOST_SIZE = 2**29  # bytes of a page


@dataclass(frozen=True)
class Unpacked:
    """What a part of a column becomes in memory."""

    values: int
    size: int  # bytes of its pages
    longest: int  # bytes of the longest value in its dictionary, which each value may be


def unpacked(data: Bytes, chunk: pq.ColumnChunkMetaData, most: int) -> Unpacked:
    """What a part of a column becomes in memory, by what its pages say.

    Args:
        data: of the whole file.
        chunk: where the part is.
        most: how many different values it may have.

    Raises:
        ValueError: it cannot be told, or is more than there may be, in words that follow its name.
    """
    values = size = longest = 0
    for page in _pages(data, chunk):
        if page.encoding == _PREFIXES:
            raise ValueError("is in the encoding DELTA_BYTE_ARRAY, which is not read")
        if page.size > MOST_SIZE:
            raise ValueError(f"has a page of {page.size:,} bytes, and {MOST_SIZE:,} are read")
        size += page.size
        if not page.is_dictionary:
            values += page.values
        elif page.values > most:
            raise ValueError(f"has {page.values:,} different values, and at most {most:,} fit")
        elif chunk.physical_type == "BYTE_ARRAY":
            longest = _longest_text(page, chunk.compression)
        else:
            longest = _NUMBER
    return Unpacked(values, size, longest)


@dataclass(frozen=True)
class _Page:
    """A page, unpacked."""

    values: int
    size: int  # bytes
    encoding: int
    is_dictionary: bool
    packed: bytes | memoryview


def _pages(data: Bytes, chunk: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """Yield the pages of a column.

    Args:
        data: of the whole file.
        chunk: where the column is.

    Raises:
        ValueError: what is there is no page.
    """
    if not chunk.num_values:
        return  # a table without rows may have no page
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    while at < end:
        try:
            header, at = _struct(data, at)
            kind = next(kind for kind in (_DATA, _DATA_V2, _DICTIONARY) if kind in header)
            size, packed = header[2], header[3]
            values, encoding = header[kind][1], header[kind][_ENCODING[kind]]
            least = min(size, packed, values)
        except (IndexError, KeyError, TypeError, StopIteration, RecursionError) as error:
            raise ValueError("is damaged: a page has no header") from error
        if least < 0:
            raise ValueError("is damaged: a page has a negative size")
        yield _Page(values, size, encoding, kind == _DICTIONARY, data[at : at + packed])
        at += packed


def _longest_text(page: _Page, compression: str) -> int:
    """How many bytes the longest text of a dictionary has.

    Raises:
        ValueError: it is damaged, or compressed in a way that is not read.
    """
    content = page.packed
    if compression != "UNCOMPRESSED":
        if compression not in _CODECS:
            raise ValueError(f"is compressed by {compression}, which is not read")
        content = pa.decompress(content, page.size, compression.lower(), asbytes=True)
    longest = at = 0
    for _ in range(page.values):
        length = int.from_bytes(content[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    if at > len(content):
        raise ValueError("is damaged: its texts are cut off")
    return longest


def _struct(data: Bytes, at: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _whole(data, at)
        if (kind := head & 15) in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: Bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _WHOLE:
        return _whole(data, at)
    if kind in (_TRUE, _FALSE, _BYTE):  # the first two inside lists
        return data[at], at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        length, at = _unsigned(data, at)
        return None, at + length
    if kind in (_LIST, _SET):
        length, kind = data[at] >> 4, data[at] & 15
        at += 1
        if length == 15:
            length, at = _unsigned(data, at)
        for _ in range(length):
            if at > len(data):
                raise IndexError("a list does not end")
            _, at = _value(data, at, kind)
        return None, at
    if kind == _STRUCT:
        return _struct(data, at)
    raise KeyError(kind)  # maps: no header of a page has one


def _whole(data: Bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def _unsigned(data: Bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise KeyError(shift)
