"""Locks between processes."""

from contextlib import AbstractContextManager
from pathlib import Path

from pluralllm_app.errors import UserError


def held(file: Path, busy: str, wait: float = 0.0) -> AbstractContextManager[object]:
    """Lock `file`, which is made if need be, until the end of the returned context manager's block.

    The lock also goes when its process ends in any other way. The file stays.

    Args:
        file: to lock.
        busy: what to say where someone else holds the lock.
        wait: seconds to wait for it before that.

    Raises:
        UserError: with the text `busy`.
        OSError: the file cannot be opened for writing.
    """
    # Not at the top: it imports asyncio, and most commands need no lock.
    from filelock import FileLock, Timeout

    try:
        return FileLock(file).acquire(timeout=wait)
    except Timeout:
        raise UserError(busy) from None
