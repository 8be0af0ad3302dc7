"""docs/three-machines.sh: from groups' own files to a report; nothing is shared but questions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pluralllm_app.survey.site import Site
from tests.conftest import ROOT
from tests.support.answers import Answers
from tests.support.deployment import free_port

NAMES = {"north": "North", "east": "East"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("three") / "machines"
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", ROOT / "docs/three-machines.sh", path],
        env=os.environ | {"PATH": tools, "PORT": str(free_port()), "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Run directory:" in done.stdout
    hidden = "yes" if os.geteuid() == 0 else "no"
    assert f"Machines are hidden from one another: {hidden}\n" in done.stdout
    return path


@pytest.mark.story
def test_the_run_ends_with_a_report(place: Path) -> None:
    assert (place / "server/federation").is_dir()
    assert "North" in (place / "server/report.html").read_text("utf-8")


@pytest.mark.story
@pytest.mark.parametrize("group", NAMES)
def test_no_other_machine_holds_answers_of_a_group(place: Path, group: str) -> None:
    survey = Site.open(place / group / "node/site", NAMES[group]).survey
    answers = Answers(survey)
    first = survey.preferences(NAMES[group]).shares[:3]
    assert answers.found_in(b"..." + first.tobytes(), questions=True, weights=True) != []
    others = [
        file
        for machine in ("server", *NAMES)
        if machine != group
        for file in (place / machine).rglob("*")
        if file.is_file() and file.name != "report.html"  # its many numbers are some by chance
    ]
    assert len(others) > 30
    for file in others:
        weights = file.suffix == ".safetensors" or ".db" in file.name
        assert answers.found_in(file.read_bytes(), questions=True, weights=weights) == [], file


@pytest.mark.story
def test_each_key_is_on_its_own_machine(place: Path) -> None:
    keys = {str(file.relative_to(place)) for file in place.rglob("*.key")}
    server = {f"server/federation/{name}" for name in ("ca/ca.key", "server/server.key")}
    own = {f"{group}/node/{name}.key" for group in NAMES for name in ("node", "draws")}
    assert keys == server | own
