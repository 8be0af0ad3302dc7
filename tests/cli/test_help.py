"""The help of the commands names what there is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result

from pluralllm_app import __version__
from pluralllm_app.cli.main import app
from pluralllm_app.core.code import installed_hash
from pluralllm_app.engines.app_files import APP
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.federation.strategies import STRATEGIES
from pluralllm_app.learning.budgets import BUDGETS
from pluralllm_app.learning.registry import LEARNERS
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.sources.registry import SOURCES
from tests.support.command import BIN, CliRunner


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("settings strategy", STRATEGIES),
        ("settings predictor", LEARNERS),
        ("compare --help", METHODS),
        ("centralized --help", BUDGETS),
    ],
)
def test_every_choice_is_named(command: str, names: dict[str, object]) -> None:
    text = invoke(*command.split()).output
    assert [name for name in names if name not in text] == []


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, list(arguments))


def test_settings_are_listed_with_defaults_ranges_and_a_line_each() -> None:
    listed = invoke("settings").output
    defaults = read_defaults(APP / "pyproject.toml")
    lines = listed.splitlines()
    for name, default in defaults.items():
        [place] = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
        assert json.dumps(default) in lines[place]
        assert lines[place + 1].startswith("    "), name  # what it is
    assert re.search(r"^rounds = 60 +whole number at least 1$", listed, re.MULTILINE)
    assert re.search(r"^fedprox.mu = 0.01 +number at least 0$", listed, re.MULTILINE)
    assert re.search(r'^precision = "auto" +auto, float32, bfloat16$', listed, re.MULTILINE)


def test_settings_with_a_word() -> None:
    listed = invoke("settings", "NHEAD").output
    assert [line.split()[0] for line in listed.splitlines() if line[0] != " "] == ["nhead"]
    refused = invoke("settings", "nothing-like-it")
    assert refused.exit_code == 1
    assert "no setting has 'nothing-like-it'" in str(refused.exception)


@pytest.mark.parametrize("command", [("run",), ("compare",), ("centralized",), ("deploy", "run")])
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--rounds", "2"], "-c 'rounds=2'"),
        (["--rounds=2"], "-c 'rounds=2'"),
        (["--learning_rate", "0.1"], "-c 'learning-rate=0.1'"),
        (["--fedprox.mu"], "-c 'fedprox.mu=...'"),
    ],
)
def test_a_setting_given_as_an_option_is_understood(
    command: tuple[str, ...], given: list[str], meant: str
) -> None:
    refused = invoke(*command, *given)
    assert refused.exit_code == 2
    assert f"is a setting, not an option: give {meant}" in refused.output


def test_other_options_are_refused_as_usual() -> None:
    refused = invoke("run", "--actorz", "2")
    assert refused.exit_code == 2
    assert "--actors" in refused.output


def test_prepare_without_a_source_names_the_sources() -> None:
    refused = invoke("prepare")
    assert refused.exit_code == 2
    assert [name for name in SOURCES if f"{name}: " not in refused.output] == []
    assert "pluralllm prepare demo --out data/demo" in refused.output
    assert "Missing option '--out'" in invoke("prepare", "demo").output


@pytest.mark.slow
@pytest.mark.parametrize("command", [["pluralllm"], [sys.executable, "-m", "pluralllm_app"]])
def test_the_version_is_told_however_it_is_called(command: list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    told = f"pluralllm {__version__}, code {installed_hash()}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    helped = subprocess.run([*command], capture_output=True, text=True, env={"PATH": path})
    assert "Usage: pluralllm" in helped.stdout + helped.stderr


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    line = f"cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && exec {BIN}/pluralllm run"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the working directory cannot be used")
