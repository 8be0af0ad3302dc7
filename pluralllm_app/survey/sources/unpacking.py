"""Files that may be compressed by gzip, whatever their names say."""

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

MOST_UNPACKED = 2**30  # bytes; of a million of them, gzip can make a thousand


def is_gzip(file: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def open_binary(file: Path, most: int | None = None) -> BinaryIO:
    """Open a file, and unpack it on the way if it is compressed.

    Reading raises ValueError behind the first `most` bytes (MOST_UNPACKED, where none is given) of
    what was compressed.
    """
    if not is_gzip(file):
        return file.open("rb")
    unpacked = _Unpacked(file, MOST_UNPACKED if most is None else most)
    return cast(BinaryIO, io.BufferedReader(unpacked))


class _Unpacked(io.RawIOBase):
    def __init__(self, file: Path, most: int) -> None:
        self._stream = gzip.open(file)  # noqa: SIM115 (`close` closes it)
        self._most = most
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._read += count
        if self._read > self._most:
            raise ValueError(
                f"what gzip compressed has more than {self._most:,} bytes: unpack it with gunzip, "
                "see that it is what you expect, and pass the unpacked file"
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
