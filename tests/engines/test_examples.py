"""The examples run as they are, and so do the ones of the pages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pluralllm_app.survey.demo import write_demo
from tests.conftest import ROOT
from tests.support.command import BIN
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.engine
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as after README's command: a run on the demo survey in runs/first."""
    place = tmp_path_factory.mktemp("examples")
    write_demo(place / "data" / "demo")
    command = [BIN / "pluralllm", "run", "--survey", "data/demo", "--out", "runs/first"]
    settings = ["--config", ROOT / "conf" / "factors.toml", "-c", "rounds=4"]
    subprocess.run([*command, *settings], cwd=place, check=True, timeout=PATIENCE)
    return place


def python(checkout: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def test_the_quickstart(checkout: Path) -> None:
    out = python(checkout, EXAMPLES / "quickstart.py", "runs/first")
    assert "read as numbers of people" in out
    assert "Should the library be open to everybody?" in out
    assert "Kelmara and the average group: alignment 0." in out


def test_asking_a_new_group(checkout: Path) -> None:
    out = python(checkout, EXAMPLES / "ask_a_new_group.py", "runs/first")
    before, *chosen, at_random = (
        float(number) for number in re.findall(r": (0\.\d{3})(?=\s|$)", out)
    )
    assert len(chosen) == 5
    assert chosen[-1] > before
    assert at_random > before


def test_the_notebook(checkout: Path, tmp_path: Path) -> None:
    """Its cells in turn, in one process; the training is that of the other tests."""
    book = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    assert book["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    training, *rest = cells
    assert "predictor=factors" in training
    assert all(cell["outputs"] == [] for cell in book["cells"] if cell["cell_type"] == "code")
    script = tmp_path / "cells.py"
    script.write_text("\n".join(["run = 'runs/first'", *rest]), "utf-8")
    assert "explained:" in python(checkout, script)


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_examples_of_pages(checkout: Path, page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(blocks), "utf-8")
    python(checkout, script)
