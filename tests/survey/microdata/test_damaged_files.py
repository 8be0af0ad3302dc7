"""Damaged files are refused: nothing ends in a traceback, and no process outlives its patience."""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata import child, files
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.files import open_microdata
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.sources.stated import Stated
from tests.conftest import ROOT
from tests.support.benchmarks import benchmarks
from tests.support.people import MAP, WRITERS, people

pytestmark = pytest.mark.slow

__all__ = ["benchmarks"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "map.toml").write_text(MAP, "utf-8")
        for name, write in WRITERS.values():
            write(people(), Path(path) / f"good-{name}")
        yield Path(path)


# Files of SPSS and Stata, each of which takes seconds, are tried by benchmarks/hostile_files.py.
@pytest.mark.parametrize("kind", ["csv", "parquet", "xlsx"])
def test_no_damage_ends_in_a_traceback(kind: str, folder: Path, benchmarks: None) -> None:
    from hostile_files import mutated

    name = WRITERS[kind][0]
    good = (folder / f"good-{name}").read_bytes()

    @given(st.integers(0, 2**32))
    def tried(seed: int) -> None:
        file = folder / f"bad-{name}"
        file.write_bytes(mutated(good, random.Random(seed)))
        for attempt in (
            lambda: draft_map(open_microdata(file, Stated()), load_profile(None), file),
            lambda: count_people(file, Stated(map=folder / "map.toml")),
        ):
            with suppress(SurveyError):  # or shares
                attempt()

    tried()


@pytest.mark.parametrize("kind", ["sav", "zsav", "dta", "por"])
def test_files_that_are_cut_off_are_refused(kind: str, folder: Path) -> None:
    name = WRITERS[kind][0]
    file = folder / f"cut-{name}"
    file.write_bytes((folder / f"good-{name}").read_bytes()[:700])
    with pytest.raises(SurveyError, match="cannot read"):
        count_people(file, Stated(map=folder / "map.toml"))


def test_a_name_that_is_no_text_is_refused() -> None:
    """As the reader of .sav gives names of bytes that are no text."""
    with pytest.raises(ValueError, match="a variable has no name"):
        child._dictionary(SimpleNamespace(column_names=["Q1", None]))


def test_what_is_called_a_file_of_spss_and_is_none(folder: Path) -> None:
    file = folder / "mine.sav"
    file.write_text("question_id,question\n")
    with pytest.raises(SurveyError, match=r"cannot read .*mine\.sav"):
        count_people(file, Stated(map=folder / "map.toml"))
    with pytest.raises(SurveyError, match="is not a file"):
        count_people(folder / "none.sav", Stated(map=folder / "map.toml"))


def test_a_process_that_says_nothing_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHILD", "tests.support.sleeper")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with pytest.raises(SurveyError, match="it is damaged, and reading it failed"):
        count_people(folder / "good-people.sav", Stated(map=folder / "map.toml"))


def test_a_limit_of_memory_that_the_machine_sets_is_kept(folder: Path) -> None:
    """As where many share a machine; a good file is no damaged one there."""
    wanted = {"file": str(folder / "good-people.sav"), "encoding": None, "codes": [], "numbers": []}
    child = [sys.executable, "-m", "pluralllm_app.survey.microdata.child", json.dumps(wanted)]
    limited = ["sh", "-c", 'ulimit -v 1000000 && exec "$@"', "sh", *child]
    said = subprocess.run(limited, capture_output=True, check=True, cwd=ROOT).stdout
    assert "variables" in json.loads(said)
