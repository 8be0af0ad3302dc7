"""Whole runs on Flower's Ray simulation, by `pluralllm run`."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pluralllm_app import client_app
from pluralllm_app.cli.main import app
from pluralllm_app.errors import UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning.base import MEMORIES
from pluralllm_app.predictors.saved import CARD
from pluralllm_app.privacy.kept import DIRECTORY
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.shared import TEXTS, VECTORS
from tests.conftest import ROOT, make_survey
from tests.support import faulty_client
from tests.support.answers import Answers
from tests.support.command import BIN, TINY_RUN, CliRunner, overrides, pluralllm
from tests.support.local_grid import LocalGrid
from tests.support.signals import with_handler
from tests.support.simulations import left_behind, weights
from tests.support.waiting import wait_until


@pytest.mark.engine
def test_ray_with_two_actors_and_no_flower_give_the_same_bits(
    tiny_survey: PreparedSurvey, config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    local, out = config | {"out": str(tmp_path / "local")}, tmp_path / "ray"
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    result = pluralllm(
        *("run", "--survey", tiny_survey.path, "-c", overrides(TINY_RUN)),
        *("--actors", 2, "--out", out),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert weights(out) == weights(tmp_path / "local")
    assert "Groups never trained on" in result.stdout
    assert result.stdout.splitlines()[-3:] == [
        f"Run directory: {out}",
        f"See it in a browser: pluralllm report {out}",
        f"Next, try another way: pluralllm run --survey {tiny_survey.path} -c "
        f"'{overrides(TINY_RUN | {'strategy': 'fedprox'})}', or see what simpler ways give: "
        f"pluralllm compare --survey {tiny_survey.path} -c '{overrides(TINY_RUN)}'",
    ]
    assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 3
    assert left_behind(simulations) == []
    search_for_answers(tiny_survey, out, result.stdout + result.stderr)


@pytest.mark.story
def test_a_network_on_top_of_factors_has_the_same_bits_in_ray(
    config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    survey = make_survey(tmp_path / "survey", evaluation=())
    both = {"prior": "factors", "rounds": 4, "client-optimizer-state": "keep"}
    both |= {"privacy": "secure-sum", "scores": "mean", "evaluate-every": 4}
    local, out = config | both | {"out": str(tmp_path / "local")}, tmp_path / "ray"
    local |= {"survey": str(survey.path)}
    run_federation(LocalGrid(client_app.app, local, nodes=3), Settings.from_config(local), local)
    result = pluralllm(
        *("run", "--survey", survey.path, "-c", overrides(TINY_RUN | both)),
        *("--actors", 2, "--out", out),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sums in the clear" not in " ".join(result.stdout.split())
    assert weights(out) == weights(tmp_path / "local")
    last = json.loads((out / "rounds.jsonl").read_text().splitlines()[-1])["evaluation"]
    assert (last["roles"]["train"]["groups"], last["groups"]) == (3, {})
    assert left_behind(simulations) == []


def search_for_answers(survey: PreparedSurvey, out: Path, printed: str) -> None:
    """Nothing of the groups' answers is in anything the run wrote or printed."""
    answers = Answers(survey)
    files = [file for file in out.rglob("*") if file.is_file()]
    assert {"flower.log", "run.json", "rounds.jsonl"} <= {file.name for file in files}
    shared = (TEXTS, VECTORS, CARD)  # a saved predictor has the questions beside it
    for file in files:
        content, weights = file.read_bytes(), file.suffix == ".safetensors"
        found = answers.found_in(content, weights=weights, questions=file.name in shared)
        assert found == [], file
    assert answers.found_in(printed.encode()) == []


@pytest.mark.story
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


@pytest.mark.story
def test_ctrl_c_stops_the_run_which_then_goes_on(
    config: dict[str, Scalar], tmp_path: Path, simulations: Path
) -> None:
    """With the noise that was drawn before, by which a run in one process has the same bits."""
    survey, out = make_survey(tmp_path / "survey", respondents=400), tmp_path / "run"
    long = TINY_RUN | {"rounds": 40, "evaluate-every": 20, "client-optimizer-state": "keep"}
    long |= {"noise": "respondents", "epsilon": 1.0}
    command = [BIN / "pluralllm", "run", "--survey", survey.path, "--out", out]
    command += ["--actors", "1"]
    process = subprocess.Popen(
        with_handler(signal.SIG_DFL, [*command, "-c", overrides(long)]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: (out / "rounds.jsonl").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert f"Stopped. To go on: pluralllm run --resume {out}\n" in output
    assert left_behind(simulations) == []
    for drawn in (out / MEMORIES).glob(f"*/{DIRECTORY}"):
        shutil.copytree(drawn, tmp_path / "local" / drawn.relative_to(out))
    local = config | long | {"survey": str(survey.path), "out": str(tmp_path / "local")}
    run_federation(LocalGrid(client_app.app, local, nodes=5), Settings.from_config(local), local)
    assert not (out / "model").exists() or weights(out) != weights(tmp_path / "local")
    resume = ["run", "--resume", str(out)]
    assert "give it alone" in str(CliRunner().invoke(app, [*resume, "-c", "rounds=3"]).exception)
    result = pluralllm(*resume, "--actors", 1)
    assert result.returncode == 0, result.stdout + result.stderr
    assert weights(out) == weights(tmp_path / "local")
    assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 41
    assert left_behind(simulations) == []
    again = CliRunner().invoke(app, resume)
    assert isinstance(again.exception, UserError)
    assert "is completed" in str(again.exception)
