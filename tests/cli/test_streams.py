"""What a command prints goes where it can, in whatever encoding, or ends the command cleanly."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.command import BIN
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow

GROUPS = ("東部", "Zürich", "Αθήνα", "East")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table whose groups and questions many encodings cannot hold."""
    rows = ["question_id,question,option,group,count"]
    for number in range(6):
        for group in GROUPS:
            rows += [f"q{number},Frage {number} 東?,{option},{group},3" for option in ("Ja", "é")]
    file = tmp_path / "unicode.csv"
    file.write_text("\n".join(rows), "utf-8")
    return file


def shell(line: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell with these variables."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def prepare(table: Path, *more: str) -> str:
    """A line that prepares the table."""
    words = ["pluralllm", "prepare", "table", "--file", str(table), "--min-questions", "5"]
    words += ["--evaluation", "東部", "--out", str(table.parent / "made"), *more]
    return shlex.join(words)


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"PYTHONIOENCODING": "ascii:strict"}, "ascii"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
        ({"PYTHONIOENCODING": "cp1252"}, "cp1252"),
        ({"LC_ALL": "C"}, "utf-8"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "ascii"),
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    ],
)
def test_an_output_that_cannot_hold_a_name_replaces_it(
    table: Path, environment: dict[str, str], encoding: str
) -> None:
    done = shell(prepare(table), environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert "Survey written to" in said
    assert ("東部" in said) is (encoding == "utf-8")
    assert ("Zürich" in said) is (encoding != "ascii")
    assert done.stderr == b""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_nothing(table: Path, closed: str) -> None:
    done = shell(f"{prepare(table)} {closed}", {})
    assert (done.returncode, done.stderr) == (0, b"")
    assert (table.parent / "made" / "survey.json").exists()


def test_an_error_needs_no_output() -> None:
    done = shell("pluralllm run -c roundz=3 >&-", {})
    assert done.returncode == 1
    assert b"unknown setting 'roundz'" in done.stderr
    assert shell("pluralllm run -c roundz=3 2>&-", {}).returncode == 1


@pytest.mark.parametrize("line", ["pluralllm run --help", "pluralllm settings"])
def test_a_pipe_that_is_closed_ends_the_command_without_a_word(line: str) -> None:
    # The pipe has no reader any more when the command writes to it.
    done = shell(f"{{ {line}; echo $? >&2; }} | :", {})
    assert done.stderr.split()[-1:] in ([b"130"], [b"0"])
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_told() -> None:
    done = shell("pluralllm --help > /dev/full", {})
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.decode() == "Error: cannot print: No space left on device\n"
