"""Files that may be compressed by gzip, whatever their names say."""

import gzip
from pathlib import Path
from typing import BinaryIO, cast


def is_gzip(file: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def open_binary(file: Path) -> BinaryIO:
    """Open a file, and unpack it on the way if it is compressed."""
    return cast(BinaryIO, gzip.open(file)) if is_gzip(file) else file.open("rb")
