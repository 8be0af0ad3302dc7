"""Directories of the user, also of one without a home."""

import os
import tempfile
from pathlib import Path

import pytest

from pluralllm_app.core.user_directories import cache_directory, data_directory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_they_are_made_where_they_are_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_directory() == tmp_path / "home/.cache/pluralllm"
    assert data_directory() == tmp_path / "home/.local/share/pluralllm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_directory() == tmp_path / "cache/pluralllm"
    assert cache_directory().is_dir()


@pytest.mark.parametrize("home", ["/proc/none", "relative", "/dev/null"])
def test_without_a_home_they_are_temporary_and_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    own = tmp_path / "tmp" / f"pluralllm-{os.getuid()}"
    assert cache_directory() == data_directory() == own
    assert own.stat().st_mode & 0o777 == 0o700
