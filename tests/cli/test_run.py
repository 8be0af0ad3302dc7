"""The `pluralllm run` command: mistakes cost nothing, and help teaches."""

import shutil
import subprocess
import zipfile
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app import client_app
from pluralllm_app.cli.main import app
from pluralllm_app.core import parts
from pluralllm_app.errors import UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.console import print_results, report_command
from pluralllm_app.records.reader import read_rounds, read_run
from pluralllm_app.records.writer import close_unfinished
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TINY, make_survey
from tests.support.command import BIN, CliRunner, overrides, pluralllm
from tests.support.local_grid import LocalGrid
from tests.support.runs import write_run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "roundz=3"], "unknown setting 'roundz': did you mean 'rounds'"),
        (["-c", "rounds=none"], "rounds = 'none' must be a whole number"),
        (["-c", "strategy=fedavgg"], "did you mean 'fedavg'"),
        (["-c", "fedprox.mu=0.1"], "fedprox.mu is for strategy = 'fedprox', not 'fedavg'"),
        (["-c", "evaluation-context=29"], "or leave the group out"),
        (["-c", "min-train-groups=4"], "too few train groups, 3 of min-train-groups = 4"),
        (["-c", "expected-nodes=6"], "a simulation of this survey has 5 nodes"),
        (["-c", "device=cuda"], "sees no GPU"),
        (["--config", "none.toml"], "cannot read none.toml"),
        (["--actors", "9"], "9 actors cannot serve 5 groups"),
        (["-c", "rounds=0"], "rounds = 0 must be at least 1 "),
        (["-c", "rounds"], "cannot read the setting 'rounds': write key=value"),
        (["--out", "/proc/none"], "cannot write the run directory /proc/none"),
        (["--out", "README.md"], "README.md is a file: give another --out"),
        (["--survey", "/none"], "does not exist"),
        (["--resume", "/none"], "--resume takes the run's own survey and settings"),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    if "device=cuda" in arguments and Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a GPU")
    given = ["--survey", str(tiny_survey.path), "--out", str(tmp_path / "run")]
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["run", *given, "-c", overrides(TINY), *arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, UserError)
    assert message in f"{result.exception} "
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_not_in_utf_8_is_refused() -> None:
    result = subprocess.run(
        [BIN / "pluralllm", "deploy", "init", "there", "--server", "a", "--groups", b"\xff"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == "Error: '\\udcff' is not in UTF-8: give another name\n"


@pytest.mark.slow
def test_a_damaged_partition_costs_no_start(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey")
    file = survey.path / survey.group("Birch").file
    file.write_bytes(file.read_bytes()[:200])
    result = pluralllm("run", "--survey", survey.path, "--out", tmp_path / "run")
    assert result.returncode == 1
    assert "birch.parquet cannot be read" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert f"The directory is {survey.path}." in result.stderr
    assert not (tmp_path / "run").exists()


def test_only_the_app_is_sent_to_the_nodes(tmp_path: Path) -> None:
    from flwr.cli.build import build_fab_from_disk  # it takes a second

    copy = tmp_path / "app"
    shutil.copytree(ROOT / "pluralllm_app", copy / "pluralllm_app")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "answers.jsonl").write_text("secret")
    (copy / "pluralllm_app" / "answers.json").write_text("secret")
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(copy))) as bundle:
        names = bundle.namelist()
    assert "pluralllm_app/server_app.py" in names
    assert not [name for name in names if "answers.json" in name]


def test_help_teaches() -> None:
    result = pluralllm("run", "--help")
    assert result.returncode == 0
    assert "pluralllm run -c 'strategy=fedprox" in result.stdout
    assert "pluralllm settings" in result.stdout


def test_a_cut_off_run_is_closed(tmp_path: Path) -> None:
    assert close_unfinished(tmp_path, "stopped", "interrupted") is None
    write_run(tmp_path, status="running")
    stopped = close_unfinished(tmp_path, "stopped", "interrupted")
    assert stopped is not None
    assert (stopped.status, stopped.error) == ("stopped", "interrupted")
    assert read_run(tmp_path) == stopped
    # A run that has ended stays as it is.
    assert close_unfinished(tmp_path, "failed", "late") == stopped


def test_what_to_try_next_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report_command(Path("a b")) == "pluralllm report 'a b'"
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name == "altair" else name)
    command = "pip install 'pluralllm-app[report]', then pluralllm report a"
    assert report_command(Path("a")) == command


def test_the_results_name_the_survey(config: dict[str, Scalar], tmp_path: Path) -> None:
    settings = Settings.from_config(config)
    run_federation(LocalGrid(client_app.app, config, nodes=5), settings, config)
    shown, out = StringIO(), tmp_path / "run"
    print_results(out, read_rounds(out, complete=True), Console(file=shown), "a hint")
    assert shown.getvalue().startswith("Survey: tiny\n")
