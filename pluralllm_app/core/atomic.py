"""Files and directories that are whole at any moment."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pluralllm_app.core.json_text import load_json
from pluralllm_app.errors import UserError


def write_atomically(path: Path, content: bytes, secret: bool = False) -> None:
    """Write a file so that a crash leaves either the old or the new content.

    Only its owner can read a `secret` one.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(0o600 if secret else 0o666)
        fresh.write_bytes(content)
        sync(fresh)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def usual_rights(file: Path) -> Iterator[None]:
    """Let the block write `file` anew, with the rights of any file that this process makes.

    safetensors makes its files for their owner alone.
    """
    file.touch()
    mode = file.stat().st_mode
    yield
    file.chmod(mode)


def sync(file: Path) -> None:
    """Wait until the content of a file is on disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def sync_directory(directory: Path) -> None:
    """Wait until it is on disk which files a directory has."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def whole_directory(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new directory beside `path`, which takes its place once the block has ended well.

    An older directory there is set aside then, and deleted last.
    """
    fresh = beside(path, "new")
    try:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir(mode=mode)
        yield fresh
        old = beside(path, "old")
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def try_directory(path: Path) -> None:
    """Raise OSError unless a directory could be made at `path`, which is not there; make none."""
    made: list[Path] = []
    missing = [place for place in (path, *path.parents) if not place.exists()]
    try:
        for place in reversed(missing):
            place.mkdir()
            made.append(place)
    finally:
        for place in reversed(made):
            place.rmdir()


def beside(path: Path, word: str) -> Path:
    """A hidden name in the directory of `path`, of this process alone."""
    return path.with_name(f".{path.name}.{word}-{os.getpid()}")


def read_json(file: Path) -> dict[str, Any]:
    """A file that holds a JSON object; {} where there is none.

    Raises:
        UserError: it holds something else.
    """
    try:
        content = load_json(file) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it holds no object")
    return content
