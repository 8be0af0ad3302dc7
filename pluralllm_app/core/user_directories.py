"""Directories of the user, for what no command named a place for."""

import os
import stat
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """Where this app keeps what it can make again: $XDG_CACHE_HOME or ~/.cache, `/pluralllm`."""
    return _directory("XDG_CACHE_HOME", ".cache")


def data_directory() -> Path:
    """Where it keeps results: $XDG_DATA_HOME or ~/.local/share, `/pluralllm`."""
    return _directory("XDG_DATA_HOME", ".local/share")


def _directory(variable: str, default: str) -> Path:
    """The first of the usual places that can be written; it is made."""
    given = Path(os.environ.get(variable, ""))
    home = Path(os.path.expanduser("~"))
    # A home may be unknown or not writable, for instance that of a service or in a container.
    own = Path(tempfile.gettempdir()) / f"pluralllm-{os.getuid()}"
    for path in (given / "pluralllm", home / default / "pluralllm"):
        if path.is_absolute():
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError:
                continue
            if os.access(path, os.W_OK):
                return path
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    # Anybody can make a directory of this name there before us.
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return own
    return Path(tempfile.mkdtemp(prefix="pluralllm-"))
