"""Paths that the system cannot use are named in one line, whatever the command."""

import os
import re
import subprocess
import sys

import pytest

from pluralllm_app.cli.paths import at_home, path_fault
from tests.conftest import ROOT
from tests.support.command import pluralllm
from tests.support.tables import PLAIN
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow

LONG = "x" * 300


@pytest.mark.parametrize("arguments", [["prepare", "demo", "--out"], ["site", "check"]])
def test_names_that_are_too_long(tmp_path, arguments):
    done = pluralllm(*arguments, tmp_path / LONG)
    assert done.returncode == 1
    assert re.fullmatch(f"Error: .*{LONG}.*File name too long.*\n", done.stderr)


@pytest.mark.parametrize("arguments", [["prepare", "demo", "--out"], ["report"]])
def test_links_in_a_circle(tmp_path, arguments):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    done = pluralllm(*arguments, tmp_path / "circle" / "x")
    assert done.returncode == 1
    assert re.fullmatch("Error: .*circle.*\n", done.stderr)


def test_a_path_that_the_locale_cannot_hold(tmp_path):
    PLAIN.to_csv(tmp_path / "Köln.csv", index=False)
    command = [sys.executable, "-m", "pluralllm_app", "prepare", "table", "--file"]
    command += [str(tmp_path / "Köln.csv"), "--out", str(tmp_path / "made")]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        command, env=os.environ | plain, cwd=ROOT, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert (
        b"cannot be a path in the encoding of this locale, ascii: set PYTHONUTF8=1" in done.stderr
    )
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("~/x y", "/home/me\\1/x y"),
        ("--out=~/x", "--out=/home/me\\1/x"),
        ("a~/b", "a~/b"),
        ("~", "~"),
        ("--out=a/~/b", "--out=a/~/b"),
    ],
)
def test_the_home_directory_where_a_shell_leaves_it(monkeypatch, argument, read):
    monkeypatch.setenv("HOME", "/home/me\\1")
    assert at_home(argument) == read


@pytest.mark.parametrize(("number", "text"), [(28, "No space left"), (27, "File too large")])
def test_a_disk_without_room(number, text):
    found = path_fault(OSError(number, text, "/there"))
    assert found == f"cannot write /there: {text}. Make room, then repeat the command"


def test_a_file_that_may_not_grow(tmp_path):
    limited = 'ulimit -f 8 && exec "$0" "$@"'  # 8 blocks of 512 bytes
    command = [sys.executable, "-m", "pluralllm_app", "prepare", "demo", "--out", tmp_path / "made"]
    done = subprocess.run(
        ["sh", "-c", limited, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert re.fullmatch("Error: cannot write .*File too large.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
