"""Files that are whole at any moment, and locks on them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pluralllm_app.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new content."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(content)
        sync(fresh)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def sync(file: Path) -> None:
    """Wait until the content of a file is on disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def held(lock: IO[str], busy: str) -> Iterator[None]:
    """Hold the lock on an open file for the block; raises UserError(busy) where another does."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(busy) from None
    yield
