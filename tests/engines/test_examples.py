"""The examples run as they are, and so do the ones of the pages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pluralllm_app import client_app
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Settings
from pluralllm_app.survey.demo import write_demo
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT
from tests.support.local_grid import LocalGrid
from tests.support.waiting import PATIENCE

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as after README's command: a run on the demo survey in runs/first, but short."""
    place = tmp_path_factory.mktemp("examples")
    write_demo(place / "data" / "demo")
    survey = PreparedSurvey.open(place / "data" / "demo")
    config = read_run_config(survey.path, ROOT / "conf" / "factors.toml", ["rounds=4"], None)
    config["out"] = str(place / "runs" / "first")
    grid = LocalGrid(client_app.app, config, nodes=len(survey.groups))
    run_federation(grid, Settings.from_config(config), config)
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


@pytest.mark.engine
def test_the_quickstart(checkout: Path) -> None:
    out = python(checkout, EXAMPLES / "quickstart.py", "runs/first")
    assert "read as numbers of people" in out
    assert "Should the library be open to everybody?" in out
    assert "Kelmara and the average group: alignment 0." in out


@pytest.mark.engine
def test_asking_a_new_group(checkout: Path) -> None:
    out = python(checkout, EXAMPLES / "ask_a_new_group.py", "runs/first")
    before, *chosen, at_random = (
        float(number) for number in re.findall(r": (0\.\d{3})(?=\s|$)", out)
    )
    assert len(chosen) == 5
    assert chosen[-1] > before
    assert at_random > before


@pytest.mark.engine
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


def rows_of(out: str) -> dict[str, list[list[float]]]:
    """The rows of a table: by their names, pairs of a number before and one after."""
    lines = [line.strip("| ").split(" | ") for line in out.splitlines() if " > " in line]
    return {
        name.strip(): [[float(part) for part in cell.split(" > ")] for cell in cells[:-1]]
        for name, *cells in lines
    }


@pytest.mark.story
def test_the_best_of_several_answers(checkout: Path) -> None:
    options = ["--n", "4", "--seeds", "1", "--questions", "10"]
    rows = rows_of(python(checkout, EXAMPLES / "best_of_n.py", "runs/first", *options))
    assert list(rows) == ["mean, share", "min, share", "adaptive-alpha, share"]
    for reward, mean, worst, _ in rows.values():
        assert reward[1] > reward[0]
        assert worst[0] <= mean[0]
        assert worst[1] <= mean[1]


@pytest.mark.story
def test_aligning_a_policy(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a form so small that nothing is learned."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # transformers warns of what TRL asks it for
    options = ["--steps", "1", "--seeds", "1", "--questions", "3"]
    rows = rows_of(python(checkout, EXAMPLES / "align_grpo.py", "runs/first", *options))
    assert len(rows) == 4
    assert len({cells[1][0] for cells in rows.values()}) == 1  # each begins with the same policy
    assert len({cells[1][1] for cells in rows.values()}) > 1


@pytest.mark.engine
@pytest.mark.parametrize("page", ["README.md", "docs/use.md", "docs/alignment.md"])
def test_examples_of_pages(checkout: Path, page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(blocks), "utf-8")
    python(checkout, script)
