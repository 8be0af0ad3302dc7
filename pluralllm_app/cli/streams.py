"""Standard output and error that hold what is printed, whatever they lead to.

What they cannot encode is replaced. Where a pipe was closed at its other end, as by `| head`, or a
terminal is gone, the command ends as by SIGTERM: there is nobody to show anything to.
"""

import errno
import io
import os
import sys
from typing import Any, cast

from pluralllm_app.cli.stopping import hang_up

OUT, ERR = 1, 2
_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)


class _Descriptor(io.FileIO):
    """One of them, as bytes, until one cannot be written; then nothing is written any more."""

    def write(self, content: Any) -> int:
        """Write bytes; returns how many were taken, which are all where nothing holds them."""
        try:
            return super().write(content)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self.fileno() == OUT:
                if error.errno not in _GONE:
                    print(f"Error: cannot print: {error.strerror}", file=sys.stderr)
                hang_up()
            return len(content)


def prepare_streams() -> None:
    """Make sys.stdout and sys.stderr hold out; call it once in a process."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _stream(OUT, sys.stdout)
    sys.stderr = _stream(ERR, sys.stderr)


def _stream(number: int, before: object) -> io.TextIOWrapper:
    encoding = before.encoding if isinstance(before, io.TextIOWrapper) else "utf-8"
    raw = cast(io.RawIOBase, _Descriptor(number, "w", closefd=False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=True
    )
