"""The benchmarks: their stand-in for the common way is the published model, and they run."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch

from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.scoring.evaluation import evaluate as evaluate_group
from pluralllm_app.scoring.evaluation import evaluation_draws
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.embedders import transformer
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TINY, make_survey
from tests.support.benchmarks import benchmarks, run
from tests.support.factors import first_predictor
from tests.support.reference import GROUPS, REFERENCE, reference_batch, reference_model
from tests.support.tiny_models import save_model

pytestmark = pytest.mark.slow

__all__ = ["benchmarks", "reference_model"]


def linear(rows: int, width_in: int, width_out: int) -> int:
    """Operations of a linear layer forwards and backwards, to its input and to its weights."""
    return 3 * 2 * rows * width_in * width_out


def step_flop(context: int, target: int, dim: int) -> int:
    """Operations of a step of the predictor of conf/paper.toml, by hand."""
    width, layers = 128, 6
    rows = context + target
    total = linear(rows, dim + 1, width) - 2 * rows * (dim + 1) * width  # none to the embeddings
    total += 3 * linear(rows, width, width)
    for queries in [rows] * (layers - 1) + [target]:
        total += 4 * linear(queries, width, width)  # queries, output, feed-forward in and out
        total += linear(context, width, 2 * width)  # keys and values
        total += 3 * 2 * 2 * queries * context * width  # products with keys and with values
    return total + linear(target, width, width) + linear(target, width, 2)


def test_the_first_word_of_commands_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("first_word"), "COMMANDS", ("--version",))
    (seconds,) = run("first_word", tmp_path, monkeypatch, "--repeats", "1").values()
    assert seconds > 0


def test_an_installation_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.import_module("installed")

    def install(environment: Path, extra: str) -> None:
        (environment / "of the extra").write_bytes(bytes(2_000_000))

    monkeypatch.setattr(installed, "install", install)
    monkeypatch.setattr(installed, "USES", {"gpo": "json"})
    options = ["--repeats", "1", "--python", sys.executable]
    results = run("installed", tmp_path, monkeypatch, *options)
    assert results["[gpo]: MB"] == pytest.approx(2)
    assert results["[gpo]: s to import json"] > 0


@pytest.mark.parametrize("tasks", [1, 2])
def test_operations_of_a_step_are_those_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    options = ["--dim", "24", "--questions", "5", "--repeats", "1", "--tasks", str(tasks)]
    results = run("local_step", tmp_path, monkeypatch, *options)
    assert 1e9 * results["GFLOP of a step of ours"] == pytest.approx(tasks * step_flop(20, 20, 24))
    assert ("task by task / ours" in results) == (tasks > 1)


def test_clients_step_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--dim", "24", "--questions", "5", "--repeats", "2", "--processes", "2"]
    results = run("local_step", tmp_path, monkeypatch, *options)
    assert results["2 processes of ours, ms a step"] > 0
    assert results["common way / 2 processes of ours"] > 0


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--device", "cpu", "--dims", "8", "16", "--task-questions", "2", "--repeats", "1"]
    options += ["--questions", "30", "--groups", "5", "--rounds", "2"]
    options += ["--prompts-of", "2", "--hidden", "64", "--layers", "1"]
    results = run("gpu", tmp_path, monkeypatch, *options)
    assert results.pop("device") == "cpu"
    assert all(value > 0 for value in results.values())
    for precision in ("float32", "bfloat16"):
        assert f"local step, 8 dimensions, {precision}: common way / ours" in results
        key = f"2 rounds in one process, 16 dimensions, {precision}: s a round without evaluation"
        assert key in results


def test_averaging_holds_one_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run("aggregation", tmp_path, monkeypatch, "--dim", "24", "--groups", "20")
    together = results["peak MiB, updates gathered"]
    assert together > 2 * results["peak MiB, updates one by one"] > 0


@pytest.mark.parametrize(
    ("name", "positive"),
    [
        ("client", ["messages", "ms a message", "ms of it beside the steps"]),
        (
            "evaluation",
            ["ours, ms a question", "common way / ours", "all groups, 3 contexts each, s"],
        ),
    ],
)
def test_a_survey_is_trained_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, positive: list[str]
) -> None:
    many = [f"Group {number}" for number in range(4)]
    survey = make_survey(tmp_path / "survey", train=many[:2], evaluation=many[2:], questions=60)
    measuring = importlib.import_module("measuring")
    tiny = measuring.paper_config() | TINY | {"rounds": 100}
    monkeypatch.setattr(measuring, "paper_config", lambda: tiny)
    results = run(name, tmp_path, monkeypatch, str(survey.path))
    assert {key: results[key] > 0 for key in positive} == dict.fromkeys(positive, True)
    if name == "evaluation":
        assert results["largest difference of a score"] < 1e-5


def test_embedding_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "opinions.csv"
    shares = "defaultdict(<class 'list'>, {'Chad': [0.25, 0.75]})"
    cells = [("Tea?", "['Yes', 'No']", "A", shares), ("Bus?", "['Yes', 'No']", "A", shares)]
    pd.DataFrame(cells, columns=["question", "options", "source", "selections"]).to_csv(file)
    options = ["--file", str(file), "--hidden", "64", "--layers", "1", "--repeats", "1"]
    results = run("embedding", tmp_path, monkeypatch, *options)
    assert results["prompts"] == 4
    assert results["largest difference"] < 1e-3
    assert results["tokens run, ours"] < results["tokens run, common"]


def test_an_encoder_is_compared(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "bert", "bert")
    # The tiny tokenizer does not know the survey's words.
    monkeypatch.setattr(transformer, "MOST_UNKNOWN", (1.0, 1.0))
    options = ["--survey", str(tiny_survey.path), "--model", model]
    results = run("encoder", tmp_path, monkeypatch, *options, "--questions", "2", "--repeats", "1")
    assert results["questions"] == 2
    assert results["prompts"] >= 4
    assert results["largest difference at length 1"] < 1e-3


def test_ways_to_run_an_encoder_are_compared(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "bert", "bert")
    options = ["--survey", str(tiny_survey.path), "--model", model, "--batches", "1"]
    results = run("encoder_ways", tmp_path, monkeypatch, *options, "--repeats", "1")
    for way in ("the activation in place", "torch's products", "by hand, torch's products"):
        assert results[f"{way}, largest difference at length 1"] < 1e-5
    assert results["weights and states in 8 bits, largest difference at length 1"] > 1e-5


def test_precisions_are_compared_seed_by_seed(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Scalar] = TINY | {"round-timeout": 60.0, "start-timeout": 60.0}
    config["learning-rate"] = 0.05
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(config))
    options = ["--survey", str(tiny_survey.path), "--config", str(tmp_path / "tiny.toml")]
    results = run("precision", tmp_path, monkeypatch, *options, "--seeds", "2")
    differences = results["evaluation groups, differences"]
    assert len(differences) == 2
    # Not none, or both would have run in the same precision; and not much.
    assert 0 < max(map(abs, differences)) < 0.01


def test_tables_and_opinions_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "opinions.csv"
    shares = "defaultdict(<class 'list'>, {'Chad': [0.25, 0.75], 'Peru': [nan, 1.0]})"
    cells = [("Tea?", "['Yes', 2.0]", "A", shares), ("Bus?", "['Yes', 'No']", "A", shares)]
    pd.DataFrame(cells, columns=["question", "options", "source", "selections"]).to_csv(file)
    results = run("preparation", tmp_path, monkeypatch, "--groups", "2", "--file", str(file))
    assert results["GlobalOpinionQA: questions"] == 2
    assert results["GlobalOpinionQA: answers"] == 2
    assert results["GlobalOpinionQA: all but the embedding, s"] > 0
    assert results["2 groups, 4,000 rows: peak MiB"] > 50


def test_a_site_of_people_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run("preparation", tmp_path, monkeypatch, "--groups", "--people", "500")
    for kind in (".csv", ".sav", ".dta"):
        assert results[f"500 people in {kind}, site create, s"] > 0
        assert results[f"500 people in {kind}, peak MiB"] > 50


def test_groups_are_counted_against_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = importlib.import_module("scale")
    surveys = []

    def watch(arguments: list[str]) -> Any:
        survey = PreparedSurvey.open(arguments[1])
        surveys.append([group.role for group in survey.groups])
        rounds = [{"seconds": seconds} for seconds in (2.0, 5.0, 1.0, 3.0, 9.0)]
        return SimpleNamespace(
            start_up=20.0,
            record={"roster_seconds": 7.0},
            rounds=rounds,
            peaks=dict.fromkeys(scale.KINDS.values(), 2**20),
        )

    monkeypatch.setattr(scale, "watch", watch)
    plot = tmp_path / "plot.png"
    options = ["--groups", "10", "20", "--dim", "4", "--plot", str(plot)]
    results = run("scale", tmp_path, monkeypatch, *options)
    assert surveys == [["train"] * 9 + ["evaluation"], (["train"] * 9 + ["evaluation"]) * 2]
    assert results["20 groups, a round without evaluation, s"] == 3
    assert results["20 groups, scoring all groups in round 0, s"] == 2
    assert results["20 groups, the last round, with evaluation, s"] == 9
    assert results["20 groups, largest of server and simulation, MiB"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_common_way_is_the_published_model(reference_model: GPO) -> None:
    from common_way import CommonGPO

    common = CommonGPO(reference_model)
    total = torch.zeros(())
    for group in GROUPS:
        task = reference_batch(group)
        shares, std = common(task)
        for name, value in (("std", std), ("prob", shares)):
            expected = REFERENCE[f"{name}/{group}"]
            np.testing.assert_allclose(value.detach().numpy(), expected, rtol=0, atol=1e-5)
        total = total + common.densities(task).sum()
    loss = -total / (3 * REFERENCE["target_x"].shape[1])
    loss.backward()
    assert loss.item() == pytest.approx(float(REFERENCE["loss"]), abs=1e-5)
    for name, parameter in common.named_parameters():
        expected = REFERENCE[f"g/{name}"]
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_the_common_way_scores_alike(tiny_survey: PreparedSurvey, make_settings) -> None:
    from common_way import CommonGPO, evaluate

    settings: Settings = make_settings({"evaluation-draws": 1})
    model = initial_model(tiny_survey.dim, settings)
    preferences = tiny_survey.preferences("Dogwood")
    arguments = (settings.split, settings.evaluation)
    ((context, _),) = evaluation_draws(preferences, "evaluation", *arguments)
    ours = evaluate_group(
        GPOPredictor(model), preferences, "evaluation", *arguments, tiny_survey.metric
    )
    theirs = evaluate(CommonGPO(model), preferences, context)
    np.testing.assert_allclose(ours.scores.scores, theirs, atol=1e-5)


def test_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--rows", "80", "--groups", "3", "--answered", "10", "--dim", "6"]
    found = run("factors", tmp_path, monkeypatch, *sizes)
    assert found["option rows"] == 80
    width = 3  # an offset and two factors
    upper, dim = width * (width + 1) // 2, 7
    sums = 80 * (1 + width + upper) + 1 + upper + 3 + 2
    described = dim * (dim + 1) // 2 + dim * width + upper
    checks = 4 * 160 + 2 + 3 * 9 * (width - 1) + 1
    assert found["MB that a group sends"] == pytest.approx(8e-6 * (sums + described + checks))


def test_the_service_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questionnaire = make_survey(tmp_path / "survey").questionnaire()
    counts = questionnaire.questions.counts
    saved = first_predictor(questionnaire.embeddings, counts, 3)
    save_predictor(saved, tmp_path / "saved", questionnaire)
    options = [str(tmp_path / "saved"), "--rate", "5", "--seconds", "2", "--repeats", "100"]
    found = run("serve", tmp_path, monkeypatch, *options)
    assert found["in this process: predictions a second"] > 0
    assert found["5 a second for 2 s: answered"] == 10
    assert found["5 a second for 2 s: not answered"] == 0


def test_secure_sums_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--groups", "3", "5", "--words", "100")
    results = run("secure_sum", tmp_path, monkeypatch, *options)
    assert results["5 groups: a group, vector, bytes a sum"] == 800
    assert results["5 groups: the server opens all but one, s"] > 0
    assert "3 groups: the server opens all but one, s" not in results  # it takes all three


def test_scores_of_secure_runs_are_compared(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ROOT / "pyproject.toml"
    module = importlib.import_module("secure_scores")
    monkeypatch.setattr(module, "read_defaults", lambda file: read_defaults(tiny) | TINY)
    options = ("--survey", str(tiny_survey.path), "--rounds", "2")
    results = run("secure_scores", tmp_path, monkeypatch, *options)
    plain, secure = (results[f"gpo, {how}: alignment"] for how in ("in the clear", "secure"))
    assert secure == pytest.approx(plain, abs=1e-5)
    assert results["factors, secure, min-contributors 3: alignment"] > 0.5


def test_what_each_part_of_the_factors_is_worth_is_measured(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    options = ["--survey", str(tiny_survey.path), "--lines", str(lines), "--seeds", "1"]
    run("ablations", tmp_path, monkeypatch, *options, "--rounds", "2")
    found = {line["variant"]: line for line in map(json.loads, lines.read_text().splitlines())}
    assert len(found) == 16
    whole = found["whole"]["alignment"]
    for change in (
        "without the text prior of offsets and loadings",
        "without what is a group's own",
        "one question a group held out",
        "mean of three starts",
        "predicting with twice a group's own",
    ):
        assert found[change]["alignment"] != whole
    assert found["without descriptions"]["alignment"] == whole  # this survey has none
