"""Locks between processes."""

from contextlib import AbstractContextManager
from pathlib import Path

from pluralllm_app.errors import UserError


def held(file: Path, busy: str) -> AbstractContextManager[object]:
    """Lock `file`, which is made if need be, until the end of the returned context manager's block.

    The lock also goes when its process ends in any other way. The file stays.

    Raises:
        UserError: with the text `busy`, where someone else holds the lock.
        OSError: the file cannot be opened for writing.
    """
    # Not at the top: it imports asyncio, and most commands need no lock.
    from filelock import FileLock, Timeout

    try:
        return FileLock(file).acquire(blocking=False)
    except Timeout:
        raise UserError(busy) from None
