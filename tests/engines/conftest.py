"""Where simulations keep their files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the simulations of a test keep their files: short, for Ray's sockets; left empty."""
    directory = Path(f"/tmp/r{os.getpid()}")
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    directory.rmdir()  # fails where a run left something
