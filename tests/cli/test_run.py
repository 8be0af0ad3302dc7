"""The `pluralllm` command: mistakes cost nothing, and real runs on Flower's Ray simulation."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.cli.build import build_fab_from_disk
from rich.console import Console
from typer.testing import CliRunner

from pluralllm_app import client_app
from pluralllm_app.cli.main import app
from pluralllm_app.engines import demo as demo_module
from pluralllm_app.engines import run_directory, simulation
from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.engines.launch import run
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.engines.run_directory import claimed, make_run_directory
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.strategies import STRATEGIES
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.records import console as follow
from pluralllm_app.records.console import print_results, report_command
from pluralllm_app.records.writer import STATE, close_unfinished
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TINY, make_survey
from tests.support import faulty_client
from tests.support.answers import Answers
from tests.support.local_grid import LocalGrid

BIN = Path(sys.executable).parent
TINY_RUN = TINY | {"round-timeout": 120.0, "start-timeout": 60.0}


def overrides(values: dict[str, Scalar]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def pluralllm(
    *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [BIN / "pluralllm", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=env,
        check=False,
    )


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


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


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("rounds = 7\nseed = 1\n[fedprox]\nmu = 0.5\n")
    config = read_run_config(Path("here"), file, ["seed=2"], tmp_path / "out")
    assert (config["rounds"], config["seed"], config["fedprox.mu"]) == (7, 2, 0.5)
    assert config["survey"] == str(Path("here").resolve())
    assert config["local-steps"] == 6


def test_a_name_that_is_not_in_utf_8_is_refused() -> None:
    result = subprocess.run(
        [BIN / "pluralllm", "deploy", "init", "there", "--server", "a", "--groups", b"\xff"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == "Error: '\\udcff' is not in UTF-8: give another name\n"


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
    copy = tmp_path / "app"
    shutil.copytree(ROOT / "pluralllm_app", copy / "pluralllm_app")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "answers.jsonl").write_text("secret")
    (copy / "pluralllm_app" / "answers.json").write_text("secret")
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(copy))) as bundle:
        names = bundle.namelist()
    assert "pluralllm_app/server_app.py" in names
    assert not [name for name in names if "answers" in name]


def test_help_teaches() -> None:
    result = pluralllm("run", "--help")
    assert result.returncode == 0
    assert "pluralllm run -c 'strategy=fedprox" in result.stdout
    assert "tool.flwr.app.config" in result.stdout
    assert set(STRATEGIES) <= set(re.findall(r"\w+", result.stdout))


def test_the_readmes_prediction_works(
    config: dict[str, Scalar],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    survey = prepare("demo", tmp_path / "data" / "demo", console=Console(quiet=True))
    predictor = GPOPredictor(GPO(survey.dim, d_model=8, num_layers=1))
    save_predictor(predictor, tmp_path / "runs" / "mine" / "best")
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("The predictor in use") :]
    snippet = section[section.index("```python") + len("```python") : section.index("\n```\n\n")]
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace("20260101-120000-seed0", "mine"), {})
    lines = [own for own in capsys.readouterr().out.splitlines() if "predicted" in own]
    predicted, true = (sum(float(line.split()[place]) for line in lines) for place in (0, 2))
    assert (predicted, true) == pytest.approx((1, 1), abs=0.03)


def test_a_cut_off_run_is_closed(tmp_path: Path) -> None:
    assert close_unfinished(tmp_path, "stopped", "interrupted") == {}
    (tmp_path / "run.json").write_text('{"status": "running", "error": null}')
    assert close_unfinished(tmp_path, "stopped", "interrupted")["status"] == "stopped"
    assert json.loads((tmp_path / "run.json").read_text())["error"] == "interrupted"
    # A run that has ended stays as it is.
    assert close_unfinished(tmp_path, "failed", "late")["status"] == "stopped"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "nothing is kept"),
        ("running", "nothing is kept"),
        ("failed", "the run had failed before"),
        ("completed", "the run had completed before"),
        ("completed with its state", "the run had completed before"),
    ],
)
def test_a_run_stopped_before_its_first_round_leaves_nothing(
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str | None,
    said: str,
) -> None:
    class Interrupted:
        def __init__(self, app: Path, config: object, resources: object, log: Path) -> None:
            log.write_text("Flower starts")
            (log.parent / "tensorboard").mkdir()
            if status:
                fields = {"status": status.split()[0]}
                (log.parent / "run.json").write_text(json.dumps(fields))
            if status == "completed with its state":
                (log.parent / STATE).touch()

        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(simulation, "Simulation", Interrupted)
    output = StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(
            *(tiny_survey.path, None, [overrides(TINY)], tmp_path / "run", None, None),
            Console(file=output),
        )
    assert said in output.getvalue()
    kept = status not in (None, "running")
    assert (tmp_path / "run").exists() == kept
    assert (tmp_path / "run" / "run.json").exists() == kept


def test_what_to_try_next_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report_command(Path("a b")) == "pluralllm report 'a b'"
    monkeypatch.setattr(follow, "find_spec", lambda name: None if name == "altair" else name)
    assert report_command(Path("a")) == "pip install -e '.[report]', then pluralllm report a"


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


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo belongs; nothing is there."""
    monkeypatch.setattr(demo_module, "DEMO", tmp_path / "data" / "demo")
    return tmp_path / "data" / "demo"


QUIET = Console(quiet=True)


def test_the_demo_is_made_once(demo: Path) -> None:
    assert demo_survey(QUIET) == demo
    before = {file: (file.stat().st_ino, file.read_bytes()) for file in demo.glob("**/*.*")}
    assert len(before) == 33
    assert demo_survey(QUIET) == demo
    assert before == {file: (file.stat().st_ino, file.read_bytes()) for file in demo.glob("**/*.*")}
    assert list(demo.parent.iterdir()) == [demo]


@pytest.mark.parametrize("other", [{"seed": 1}, {"evaluation_fraction": 0.5}])
def test_another_demo_is_not_overwritten(demo: Path, other: dict[str, Any]) -> None:
    prepare("demo", demo, console=QUIET, **other)
    before = {file: file.read_bytes() for file in demo.glob("**/*.*")}
    with pytest.raises(UserError, match="not the built-in demo survey: give it as --surv"):
        demo_survey(QUIET)
    assert before == {file: file.read_bytes() for file in demo.glob("**/*.*")}
    assert list(demo.parent.iterdir()) == [demo]


@pytest.mark.parametrize(
    "mistake", ["rounds=none", "strategy=fedavgg", "strategy=fedprox fedprox.mu=-1"]
)
def test_settings_are_checked_before_the_demo_is_made(demo: Path, mistake: str) -> None:
    with pytest.raises(SettingsError):
        run(None, None, [mistake], None, None, None, QUIET)
    assert not demo.parent.exists()


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the simulations of a test keep their files: short, for Ray's sockets; left empty."""
    directory = Path(f"/tmp/r{os.getpid()}")
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    directory.rmdir()  # fails where a run left something


def left_behind(simulations: Path) -> list[str]:
    """Command lines of processes that a test's simulations left running."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PLURALLLM_SIMULATION", "").startswith(str(simulations)):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_the_results_name_the_survey(config: dict[str, Scalar], tmp_path: Path) -> None:
    settings = Settings.from_config(config)
    run_federation(LocalGrid(client_app.app, config, nodes=5), settings, config)
    rounds = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    shown = StringIO()
    print_results(settings, list(map(json.loads, rounds)), Console(file=shown), "a hint")
    assert shown.getvalue().startswith("Survey: tiny\n")


@pytest.mark.engine
def test_ray_one_actor_two_actors_and_no_flower_give_the_same_bits(
    tiny_survey: PreparedSurvey, config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    local = config | {"out": str(tmp_path / "local")}
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    for actors in (1, 2):
        out = tmp_path / f"actors{actors}"
        result = pluralllm(
            *("run", "--survey", tiny_survey.path, "-c", overrides(TINY_RUN)),
            *("--actors", actors, "--out", out),
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert weights(out) == weights(tmp_path / "local")
        assert "Groups never trained on" in result.stdout
        assert result.stdout.splitlines()[-3:] == [
            f"Run directory: {out}",
            f"See it in a browser: pluralllm report {out}",
            f"Next, try a strategy: pluralllm run --survey {tiny_survey.path} -c "
            "'strategy=fedprox', or see what simpler ways give: pluralllm compare --survey "
            f"{tiny_survey.path}",
        ]
        assert json.loads((out / "run.json").read_text())["status"] == "completed"
        assert len((out / "rounds.jsonl").read_text().splitlines()) == 3
    assert left_behind(simulations) == []
    search_for_answers(tiny_survey, out, result.stdout + result.stderr)


def search_for_answers(survey: PreparedSurvey, out: Path, printed: str) -> None:
    """Nothing of the groups' answers is in anything the run wrote or printed."""
    answers = Answers(survey)
    files = [file for file in out.rglob("*") if file.is_file()]
    assert {"flower.log", "run.json", "rounds.jsonl"} <= {file.name for file in files}
    for file in files:
        weights = file.suffix == ".safetensors"
        assert answers.found_in(file.read_bytes(), weights=weights) == [], file
    assert answers.found_in(printed.encode()) == []


@pytest.mark.engine
def test_groups_that_raise_are_recorded_and_below_the_quorum_the_run_fails(
    tmp_path: Path, simulations: Path
) -> None:
    survey = make_survey(tmp_path / "survey")
    for partition, faults in ((0, {4: "raise"}), (1, {3: "raise", 4: "raise"})):
        plan = tmp_path / f"node-{partition}" / "faults.json"
        plan.parent.mkdir()
        plan.write_text(json.dumps(faults))
    app, out = tmp_path / "app", tmp_path / "run"
    shutil.copytree(ROOT / "pluralllm_app", app / "pluralllm_app")
    shutil.copy(faulty_client.__file__, app / "pluralllm_app")
    project = (ROOT / "pyproject.toml").read_text()
    (app / "pyproject.toml").write_text(project.replace(".client_app:app", ".faulty_client:app"))
    result = pluralllm(
        *("run", "--survey", survey.path, "--out", out, "--actors", 1),
        *("-c", overrides(TINY_RUN | {"rounds": 6, "evaluate-every": 6})),
        env=os.environ | {"PYTHONPATH": str(app)},
    )
    assert result.returncode == 1, result.stdout + result.stderr
    raised = "RuntimeError in faulty_client.py, line "
    errors = " ".join(result.stderr.split())
    assert f"round 4: good updates: 1, fewer than min-train-groups = 2: Alder: {raised}" in errors
    assert "Traceback" not in result.stderr
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [[own["group"] for own in entry["failures"]] for entry in rounds] == [
        *([], [], [], ["Birch"], ["Alder", "Birch"])
    ]
    assert set(rounds[3]["train"]["groups"]) == {"Alder", "Cedar"}
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"] in errors
    assert left_behind(simulations) == []
    search_for_answers(survey, out, result.stdout + result.stderr)


@pytest.fixture
def flower_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment the README gives for a plain `flwr run`; ends its SuperLink afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    yield environment
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home):
                process.kill()
        except psutil.Error:
            continue


@pytest.mark.engine
def test_plain_flwr_run_gives_the_same_bits(
    tiny_survey: PreparedSurvey,
    config: dict[str, Scalar],
    tmp_path: Path,
    flower_environment: dict[str, str],
) -> None:
    local = config | {"out": str(tmp_path / "local"), "seed": 3}
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    preset = tmp_path / "preset.toml"
    preset.write_text(
        "\n".join(f"{key} = {value}" for key, value in (TINY_RUN | {"seed": 3}).items())
    )
    out = tmp_path / "plain"
    paths = {"PLURALLLM_SURVEY": str(tiny_survey.path), "PLURALLLM_OUT": str(out)}
    empty = tmp_path / "empty"
    empty.mkdir()
    result = subprocess.run(
        [
            *(BIN / "flwr", "run", ROOT, "--stream", "--run-config", preset),
            *("--federation-config", "num-supernodes=5 client-resources-num-cpus=1"),
        ],
        env=flower_environment | paths,
        cwd=empty,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert weights(out) == weights(tmp_path / "local")


@pytest.mark.engine
def test_ctrl_c_stops_the_run_which_then_goes_on(
    tiny_survey: PreparedSurvey, config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    out = tmp_path / "run"
    long = TINY_RUN | {"rounds": 80, "evaluate-every": 20, "client-optimizer-state": "keep"}
    local = config | long | {"out": str(tmp_path / "local")}
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    process = subprocess.Popen(
        [
            *(BIN / "pluralllm", "run", "--survey", tiny_survey.path, "--out", out),
            *("-c", overrides(long)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 180
    while not (out / "rounds.jsonl").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert f"Stopped. To go on: pluralllm run --resume {out}\n" in output
    assert left_behind(simulations) == []
    assert not (out / "model").exists() or weights(out) != weights(tmp_path / "local")
    refused = pluralllm("run", "--resume", out, "-c", "rounds=3")
    assert "give it alone" in refused.stderr
    result = pluralllm("run", "--resume", out)
    assert result.returncode == 0, result.stdout + result.stderr
    assert weights(out) == weights(tmp_path / "local")
    assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 81
    assert left_behind(simulations) == []
    again = pluralllm("run", "--resume", out)
    assert again.returncode == 1
    assert "is completed" in " ".join(again.stderr.split())
