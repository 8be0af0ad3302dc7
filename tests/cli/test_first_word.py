"""Every command says something before it imports what takes seconds.

What is imported is counted, and no time is measured: Python tells each import as it happens, among
what the command prints.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow

SLOW = {"torch", "flwr", "ray", "pandas", "transformers", "altair", "pyarrow", "numpy", "httpx"}
IMPORT = re.compile(r"import time:\s+\S+ \|\s+\S+ \| +([\w.]+)")
MOST_MODULES = 420


def before_the_first_word(*arguments: str | Path) -> tuple[set[str], list[str]]:
    """What a command imports before it prints anything, and the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pluralllm_app", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        timeout=PATIENCE,
    )
    modules: set[str] = set()
    said: list[str] = []
    for line in done.stdout.splitlines():
        found = IMPORT.fullmatch(line)
        if not found and not line.startswith("import time:"):
            said.append(line)
        elif found and not said:
            modules.add(found[1])
    return modules, said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "Usage: pluralllm"),
        (["--version"], "pluralllm "),
        (["run", "--help"], "Usage: pluralllm run"),
        (["deploy", "--help"], "Usage: pluralllm deploy"),
        (["runn"], "No such command"),
        (["run", "--rounds", "2"], "is a setting"),
        (["run", "-c", "roundz=3"], "unknown setting 'roundz'"),
        (["run", "-c", "rounds=none"], "must be a whole number"),
        (["run", "--survey", "/none"], "/none does not exist"),
        (["run", "-c", "strategy=fedavgg"], "Checking settings and survey ..."),
        (["run", "--resume", "/none"], "Going on with /none ..."),
        (["compare", "-c", "roundz=3"], "Starting ..."),
        (["centralized", "-c", "roundz=3"], "Starting ..."),
        (["settings", "rounds"], "rounds = 60"),
        (["prepare"], "name a source"),
        (["prepare", "nothing", "--out", "/none"], "Starting ..."),
        (["report", "/none"], "Starting ..."),
        (["serve", "/none", "--port", "0"], "Loading /none ..."),
        (["serve", "/none", "--host", "0.0.0.0"], "can be reached by others"),
        (["deploy", "run", "/none"], "/none"),
        (["deploy", "status", "/none"], "/none"),
        (["deploy", "register", "/none"], "/none"),
    ],
)
def test_the_first_word_comes_before_slow_imports(arguments: list[str], word: str) -> None:
    modules, said = before_the_first_word(*arguments)
    assert word in " ".join(" ".join(said).split()), said
    assert {module.partition(".")[0] for module in modules} & SLOW == set()
    assert len(modules) < MOST_MODULES
