"""Run directories: each is new, and for one command at a time."""

from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from pluralllm_app.engines import run_directory
from pluralllm_app.engines.run_directory import claimed, make_run_directory
from pluralllm_app.errors import UserError
from pluralllm_app.settings import Scalar


def test_runs_of_one_second_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls(2026, 1, 1, 12)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_directory, "datetime", Clock)
    made = [make_run_directory({"out": "", "seed": 3}) for _ in range(3)]
    names = [f"20260101-120000-seed3{suffix}" for suffix in ("", "-2", "-3")]
    assert made == [tmp_path / "runs" / name for name in names]
    assert all(path.is_dir() for path in made)


def test_a_given_directory_is_for_one_command(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config: dict[str, Scalar] = {"out": str(out), "seed": 0}
    out.mkdir()
    make_run_directory(config)  # empty, so it may be there
    make_run_directory(config)  # as a command that was started in the same moment
    with claimed(out), pytest.raises(UserError, match="another command runs in"), claimed(out):
        pass
    with claimed(out), pytest.raises(UserError, match="is not empty: give another --out"):
        make_run_directory(config)
    with claimed(out):  # a run is resumed
        pass
