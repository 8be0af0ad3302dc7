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


def test_a_directory_that_somebody_else_could_have_made_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    own = tmp_path / "tmp" / f"pluralllm-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own.symlink_to(tmp_path / "elsewhere")
    assert cache_directory() not in (own, tmp_path / "elsewhere")
    own.unlink()
    own.mkdir()
    own.chmod(0o777)
    assert cache_directory() != own


@pytest.mark.parametrize("home", ["/proc/none", "relative", "/dev/null"])
def test_without_a_home_they_are_temporary_and_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    own = tmp_path / "tmp" / f"pluralllm-{os.getuid()}"
    assert cache_directory() == data_directory() == own
    assert own.stat().st_mode & 0o777 == 0o700
