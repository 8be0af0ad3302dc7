"""What a node did, for its owner: a line of JSON for each message that it answered.

A line is on the disk before the answer leaves the machine. It names the run, the code that ran, the
kind of message, the round, sizes, seconds, and whether the message was answered: no answers of the
group, no texts of the survey and no texts of errors, which might quote one.
"""

import errno
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pluralllm_app.errors import UserError

AUDIT_LOG = "audit.jsonl"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A message that a node answers."""

    run: str  # the SuperLink's number of the run; more digits than numbers in JSON can have
    code: str  # hash of the code of the node
    message: str  # query, train or evaluate; query.secure_sum and the like for secure sums
    round: int | None  # as the server names it; None: it names none
    bytes_in: int  # of what the message holds and, with the first of a run, of the server's bundle
    bytes_out: int  # of what the answer holds
    seconds: float  # from the message to its answer
    outcome: Literal["answered", "failed", "refused"]
    """refused: the run is of other code, or the node's owner does not let it. failed: by an error,
    which the server is told."""


class AuditLog:
    """Appends to a file that its owner alone can read, which may be renamed at any time.

    Args:
        file: it need not be there. A last line that a crash has torn is ended, and stays.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._append(b"\n" if file.exists() and _is_torn(file) else b"")
        except OSError as error:
            raise UserError(
                f"cannot write {file}, in which this node notes what it does: {error.strerror}"
            ) from error

    def write(self, entry: Answered) -> None:
        """Append a line, and wait until it is on the disk; raises OSError where that fails."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append(json.dumps({"time": time, **asdict(entry)}).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        opened = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opened, "ab", buffering=0) as file:
            os.fchmod(opened, 0o600)
            if file.write(line) != len(line):  # there was room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(opened)


def _is_torn(file: Path) -> bool:
    with file.open("rb") as opened:
        if not opened.seek(0, os.SEEK_END):
            return False
        opened.seek(-1, os.SEEK_END)
        return opened.read() != b"\n"
