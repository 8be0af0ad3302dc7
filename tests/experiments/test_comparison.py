"""Comparisons: cells, going on, refusing, and the command as a user runs it."""

import csv
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from pluralllm_app import client_app
from pluralllm_app.cli.comparison_tables import print_comparison
from pluralllm_app.cli.main import app
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.comparison import Cell, locked, open_comparison
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.experiments.results import Comparison
from pluralllm_app.experiments.workers import choose_gpu, run_cell, run_cells
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.reader import read_run
from pluralllm_app.settings import ADDED_LATER, Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey
from tests.support.command import CliRunner, write_settings
from tests.support.local_grid import LocalGrid
from tests.support.runs import write_run
from tests.support.weights import saved_weights

pytestmark = pytest.mark.slow

Config = dict[str, Scalar]


def shown(comparison: Comparison) -> str:
    console = Console(width=500, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        print_comparison(comparison, console)
    return capture.get()


def cells(config: Config, out: Path, seeds: int = 1, methods: Any = METHODS) -> list[Cell]:
    survey = PreparedSurvey.open(str(config["survey"]))
    return open_comparison(out, config, survey, seeds, list(methods))


def test_every_method_end_to_end(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey", respondents=300)
    config |= {"reserved-fraction": 0.2, "survey": str(survey.path)}
    planned = cells(config, tmp_path / "all", seeds=2)
    # Three groups, all of them in each round: equal tasks are equal steps.
    assert len(planned) == 2 * (len(METHODS) - 1)
    for cell in planned:
        run_cell(cell)
    comparison = Comparison.read(tmp_path / "all")
    assert comparison.unfinished == 0
    for method in comparison.methods:
        for role in ("train", "evaluation"):
            for key in ("mean", "mean_seen", "mean_reserved"):
                score = method.score(role, key)
                assert score is not None
                assert 0 < score.mean < 1, (method.name, role, key)
                assert len(score.values) == 2
    uniform, consensus = comparison.method("uniform"), comparison.method("consensus")
    assert uniform is not None
    assert consensus is not None
    # Nobody's answers to reserved questions are pooled: the consensus on them is uniform.
    reserved = [m.score("evaluation", "mean_reserved") for m in (uniform, consensus)]
    assert reserved[0] == reserved[1]
    assert uniform.score("evaluation", "mean_seen") != consensus.score("evaluation", "mean_seen")
    difference = consensus.difference(uniform, "evaluation", "mean")
    assert difference is not None
    assert set(uniform.group_scores("evaluation")) == {"Dogwood", "Élan 中/.."}
    text = shown(comparison)
    assert "Federated GPO" in text
    assert "the same as Centralized GPO, equal steps" in text
    assert "Alignment by question" in text


def test_a_federated_cell_gives_the_weights_of_a_run(config: Config, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config |= {"client-optimizer-state": "keep"}
    # The second of two in one process: nothing of the first must stay.
    for cell in cells(config, tmp_path / "one", seeds=2, methods=["federated"]):
        run_cell(cell)
    config |= {"seed": 1, "evaluation-seed": 1}
    settings = Settings.from_config(config)
    run_federation(LocalGrid(client_app.app, config, 5), settings, config)
    ours, theirs = (saved_weights(path / "model") for path in (cell.path, settings.path("out")))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_finished_is_kept_and_what_was_cut_off_is_redone(
    config: Config, tmp_path: Path
) -> None:
    out = tmp_path / "some"
    first, second = cells(config, out, seeds=2, methods=["uniform"])
    run_cell(first)
    write_run(second.path, [], status="running")
    again = cells(config, out, seeds=2, methods=["uniform"])
    assert [cell.finished for cell in again] == [True, False]
    run_cell(again[1])
    # More seeds and methods join; those of before stay.
    more = cells(config, out, seeds=3, methods=["consensus"])
    assert {(cell.method, cell.seed) for cell in more} == {("consensus", n) for n in range(3)}
    comparison = Comparison.read(out)
    assert comparison.unfinished == 4
    assert "4 runs are not finished" in shown(comparison)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 9}, "have rounds = 2, and you ask for rounds = 9"),
        ({"evaluation-context": 5}, "have evaluation-context = 3, and you ask"),
    ],
)
def test_other_settings_are_refused(
    config: Config, tmp_path: Path, change: Config, message: str
) -> None:
    cells(config, tmp_path / "one")
    with pytest.raises(UserError, match=message):
        cells(config | change, tmp_path / "one")


@pytest.mark.parametrize("change", ["role", "answers"])
def test_other_roles_or_answers_are_refused(config: Config, tmp_path: Path, change: str) -> None:
    survey = make_survey(tmp_path / "survey")
    config |= {"survey": str(survey.path)}
    cells(config, tmp_path / "one")
    if change == "role":
        file = survey.path / "survey.json"
        file.write_text(file.read_text().replace('"train"', '"evaluation"', 1))
    else:
        ours, other = (survey.path / survey.group(name).file for name in ("Alder", "Birch"))
        ours.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="are of another survey"):
        cells(config, tmp_path / "one")


def test_what_is_the_same_is_run_once_whoever_asks(config: Config, tmp_path: Path) -> None:
    (cell,) = cells(config, tmp_path / "one", methods=["centralized-equal-tasks"])
    assert cell.method == "centralized-equal-steps"
    run_cell(cell)
    comparison = Comparison.read(tmp_path / "one")
    assert comparison.unfinished == 0
    assert comparison.method("centralized-equal-tasks") is not None


def test_only_what_is_asked_for_is_run_and_all_is_kept(config: Config, tmp_path: Path) -> None:
    cells(config, tmp_path / "one", seeds=3, methods=["uniform", "ridge"])
    (cell,) = cells(config, tmp_path / "one", seeds=1, methods=["uniform"])
    assert (cell.method, cell.seed) == ("uniform", 0)
    assert Comparison.read(tmp_path / "one").info.seeds == [0, 1, 2]


def test_settings_that_change_no_result_may_change(config: Config, tmp_path: Path) -> None:
    cells(config, tmp_path / "one")
    cells(config | {"round-timeout": 9.0, "tracker": "tensorboard"}, tmp_path / "one")


def test_a_comparison_begun_before_a_setting_existed_goes_on(
    config: Config, tmp_path: Path
) -> None:
    cells(config, tmp_path)
    file = tmp_path / "comparison.json"
    content = json.loads(file.read_text())
    for key in ADDED_LATER:
        content["identity"]["settings"].pop(key, None)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="have precision = auto, and you ask"):
        cells(config | {"precision": "bfloat16"}, tmp_path)
    with pytest.raises(UserError, match=r"take its settings: -c 'weight-cap=1\.0'"):
        cells(config, tmp_path)
    cells(config | {"weight-cap": 1.0}, tmp_path)  # as it was then


def test_one_comparison_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="another comparison is at work")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), locked(tmp_path / "file"):
        pass


def test_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [choose_gpu(number, 2) for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,5")
    assert [choose_gpu(number, 2) for number in range(3)] == ["MIG-a", "5", "MIG-a"]


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match="holds no comparison"), locked(tmp_path / "photos"):
        pass
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_failed_run_is_named_and_the_others_go_on(config: Config, tmp_path: Path) -> None:
    config |= {"optimizer": "sgd", "learning-rate": 1e30, "clip-norm": 0.0}
    planned = cells(config, tmp_path / "one", methods=["federated", "uniform"])
    seen: list[int] = []
    errors = run_cells(planned, 2, lambda running, done: seen.append(done))
    ((cell, text),) = errors.items()
    assert cell.method == "federated"
    assert text.startswith("round 1: ")
    assert seen[-1] == 2
    assert planned[1].finished


LONG: Config = {"rounds": 100_000, "evaluate-every": 100_000, "checkpoint-every": 100_000}


def test_a_killed_process_costs_its_cell_alone(config: Config, tmp_path: Path) -> None:
    planned = cells(config | LONG, tmp_path / "one", methods=["federated", "uniform"])

    def kill(running: list[Cell], done: int) -> None:
        if [cell for cell in running if len(rounds(cell.path)) > 2]:
            for process in multiprocessing.active_children():
                process.kill()

    errors = run_cells(planned, 1, kill)
    assert {cell.method: text.split(",")[0] for cell, text in errors.items()} == {
        "federated": "its process was killed"
    }
    assert planned[1].finished
    assert status(planned[0].path) == "failed"
    assert multiprocessing.active_children() == []


def status(path: Path) -> str | None:
    run = read_run(path)
    return run.status if run else None


def rounds(path: Path) -> list[str]:
    file = path / "rounds.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def test_without_evaluation_groups(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey")
    file = survey.path / "survey.json"
    file.write_text(file.read_text().replace('"evaluation"', '"train"'))
    config |= {"survey": str(survey.path)}
    for cell in cells(config, tmp_path / "one", methods=["federated", "uniform", "local-only"]):
        run_cell(cell)
    comparison = Comparison.read(tmp_path / "one")
    federated = comparison.method("federated")
    assert federated is not None
    assert federated.score("evaluation", "mean") is None
    assert federated.score("train", "mean") is not None
    assert federated.runs[0].cost_of_gain(0.9) is None
    said = shown(comparison)
    assert "Federated GPO" in said
    assert "No evaluation groups" in said
    assert "Fairness" not in said


@pytest.mark.parametrize(("evaluation", "fair"), [(("Cedar",), False), (("Cedar", "Dune"), True)])
def test_fairness_is_over_several_groups(
    config: Config, tmp_path: Path, evaluation: tuple[str, ...], fair: bool
) -> None:
    survey = make_survey(tmp_path / "survey", evaluation=evaluation)
    for cell in cells(config | {"survey": str(survey.path)}, tmp_path / "one", methods=["uniform"]):
        run_cell(cell)
    said = shown(Comparison.read(tmp_path / "one"))
    assert ("Fairness over groups never trained on" in said) == fair
    assert ("fairness index FI = " in said) == fair
    assert ("One evaluation group: nothing to say of fairness" in said) != fair


def test_the_command(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    tiny = write_settings(config, tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["compare", "--survey", str(config["survey"]), "--config", str(tiny)]
    command += ["--out", "out", "--seeds", "1"]
    command += ["--method", "uniform", "--method", "consensus"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "one seed gives no interval" in result.output
    assert "Consensus" in result.output
    said = ["uniform, seed 0: done", "consensus, seed 0: done", "Scoring from few answers and many"]
    assert all(line in result.output for line in said)  # where no bar is to be seen
    assert (tmp_path / "out" / "cells" / "uniform" / "seed-0" / "run.json").exists()
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open(encoding="utf-8")))
    assert [(row["method"], row["role"]) for row in rows] == [
        *(("uniform", "evaluation"), ("uniform", "train")),
        *(("consensus", "evaluation"), ("consensus", "train")),
    ]
    assert 0 < float(rows[0]["mean"]) < 1
    again = CliRunner().invoke(app, command)
    assert "2 of 2 runs finished already" in again.output
    wrong = CliRunner().invoke(app, [*command, "--method", "consensos"])
    assert isinstance(wrong.exception, UserError)
    assert "did you mean" in str(wrong.exception)
    assert "consensus" in str(wrong.exception)
