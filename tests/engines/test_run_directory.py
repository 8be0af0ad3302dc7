"""Run directories: each is new, and for one command at a time."""

from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from pluralllm_app.engines import run_directory
from pluralllm_app.engines.run_directory import LOG, claimed, make_run_directory
from pluralllm_app.errors import UserError
from pluralllm_app.records.writer import STATE
from pluralllm_app.settings import Scalar
from tests.support.runs import write_run


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


def test_what_never_began_may_be_removed(tmp_path: Path) -> None:
    config: dict[str, Scalar] = {"out": str(tmp_path), "seed": 0}
    write_run(tmp_path, status="failed")
    (tmp_path / LOG).touch()
    with pytest.raises(UserError, match="a run that failed before its first round: remove it"):
        make_run_directory(config)
    (tmp_path / STATE).touch()
    with pytest.raises(UserError, match="not empty: give another --out"):
        make_run_directory(config)
