"""Training on pooled groups and on one group alone: budgets, record, determinism."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pluralllm_app.errors import UserError
from pluralllm_app.learning import centralized
from pluralllm_app.learning.centralized import budget_steps, train_alone, train_centralized
from pluralllm_app.learning.local_steps import initial_model, train_group
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.preferences import reserved_questions
from pluralllm_app.scoring.evaluation import evaluate
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey
from tests.support.weights import saved_vector

Config = dict[str, Scalar]


def run(config: Config, budget: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train; returns run.json and the lines of rounds.jsonl."""
    settings = Settings.from_config(config)
    train_centralized(PreparedSurvey.open(settings.path("survey")), settings, config, budget)
    return read(config)


def read(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = Path(str(config["out"]))
    lines = (out / "rounds.jsonl").read_text().splitlines()
    return json.loads((out / "run.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("budget", "overrides", "steps"),
    [
        ("paper", {}, 100),
        ("equal-steps", {}, 4),  # 2 rounds of 2 local steps
        ("equal-tasks", {}, 4),  # 3 groups x 4 tasks, 3 tasks a step
        ("equal-tasks", {"train-groups-per-round": 2, "rounds": 6}, 8),  # 24 tasks, 3 a step
        ("converged", {}, 12),  # at most 3 times equal-steps
    ],
)
def test_steps_of_a_budget(
    make_settings: Callable[..., Settings], budget: str, overrides: Config, steps: int
) -> None:
    assert budget_steps(budget, make_settings(overrides), 3) == steps


def test_impossible_budgets(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match="'equal' is not one of paper, equal-steps"):
        budget_steps("equal", make_settings(), 3)
    with pytest.raises(UserError, match="no train groups"):
        budget_steps("paper", make_settings(), 0)


def test_the_record_is_that_of_a_run(config: Config) -> None:
    record, rounds = run(
        config | {"local-steps": 3, "rounds": 3, "evaluate-every": 2}, "equal-steps"
    )
    assert (record["status"], record["method"]) == ("completed", "centralized-equal-steps")
    assert [entry["group"] for entry in record["roster"]] == [
        *("Alder", "Birch", "Cedar"),
        *("Dogwood", "Élan 中/.."),
    ]
    assert [entry["round"] for entry in rounds] == [0, 1, 2, 3]
    assert [bool(entry["evaluation"]) for entry in rounds] == [True, False, True, True]
    assert rounds[1]["train"]["steps"] == 3
    assert rounds[1]["train"]["tasks"] == 9
    assert rounds[-1]["evaluation"]["roles"]["evaluation"]["groups"] == 2
    assert rounds[0]["train"] is None


def test_the_last_round_takes_the_steps_that_are_left(config: Config) -> None:
    _, rounds = run(config | {"local-steps": 30}, "paper")
    assert [entry["train"]["steps"] for entry in rounds[1:]] == [30, 30, 30, 10]


def test_same_seed_same_bits(config: Config, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(config | {"out": str(tmp_path / name), "seed": seed}, "equal-steps")
        weights.append(saved_vector(tmp_path / name / "model"))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_converged_stops_when_the_score_no_longer_rises(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(centralized, "PATIENCE", 2)
    # So large a rate ruins the score at once: the untrained predictor stays the best.
    record, rounds = run(config | {"learning-rate": 0.5, "rounds": 20}, "converged")
    scores = [entry["evaluation"]["roles"]["train"]["mean"] for entry in rounds]
    assert len(scores) < 21
    assert len(scores) - 1 - int(np.argmax(scores)) == 2
    assert record["best_round"] == int(np.argmax(scores))


def test_a_failure_is_recorded(config: Config) -> None:
    with pytest.raises(UserError):
        run(config, "nonsense")
    record, *_ = (json.loads((Path(str(config["out"])) / "run.json").read_text()),)
    assert record["status"] == "failed"
    assert "nonsense" in record["error"]


def test_alone_is_a_client_that_never_hears_of_the_others(config: Config) -> None:
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.path("survey"))
    train_alone(survey, settings, config)
    record, (entry,) = read(config)
    assert (record["status"], record["method"]) == ("completed", "local-only")
    assert entry["train"]["tasks"] == 12
    others = []
    for name in ("Alder", "Birch", "Cedar"):
        model = initial_model(survey.dim, settings)
        for number in (1, 2):
            train_group(
                model,
                survey.preferences(name),
                settings.training,
                seed=0,
                split=settings.split,
                round_number=number,
                rounds=2,
            )

        def score(group: str, role: str, model: GPO = model) -> float:
            preferences = survey.preferences(group)
            return evaluate(
                GPOPredictor(model),
                preferences,
                role,
                settings.split,
                settings.evaluation,
                survey.metric,
            ).scores.mean

        groups = entry["evaluation"]["groups"]
        assert groups[name]["alignment"] == pytest.approx(score(name, "train"), abs=1e-6)
        others.append(score("Dogwood", "evaluation"))
    assert groups["Dogwood"]["alignment"] == pytest.approx(np.mean(others), abs=1e-6)
    assert groups["Dogwood"]["loss"] is None


@pytest.mark.parametrize("method", ["centralized", "alone"])
def test_weights_that_diverge_end_the_run(config: Config, method: str) -> None:
    config |= {"optimizer": "sgd", "learning-rate": 1e30, "clip-norm": 0.0}
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.path("survey"))
    train = train_alone if method == "alone" else partial(train_centralized, budget="equal-steps")
    with pytest.raises(UserError, match="no longer finite: lower learning-rate"):
        train(survey, settings, config)
    assert json.loads((settings.path("out") / "run.json").read_text())["status"] == "failed"


def test_reserved_questions_choose_nothing(config: Config, tmp_path: Path) -> None:
    config |= {"reserved-fraction": 0.4, "rounds": 6, "learning-rate": 0.05}
    best = []
    for name in ("a", "b"):
        survey = make_survey(tmp_path / name)
        if name == "b":
            reverse_reserved_answers(survey, Settings.from_config(config))
        out = {"survey": str(survey.path), "out": str(tmp_path / f"run-{name}")}
        record, rounds = run(config | out, "equal-steps")
        scores = [entry["evaluation"]["roles"]["train"] for entry in rounds]
        best.append((record["best_round"], [score["mean_seen"] for score in scores]))
        assert record["best_round"] == int(np.argmax(best[-1][1]))
    assert best[0] == best[1]
    assert scores[0]["mean_reserved"] != scores[0]["mean_seen"]


def reverse_reserved_answers(survey: PreparedSurvey, settings: Settings) -> None:
    """Turn the shares of every reserved question around in the train groups' files."""
    for group in survey.groups:
        file = survey.path / group.file
        table = pq.read_table(file)
        ids = [int(name[1:]) for name in table["question_id"].to_pylist()]
        mask = reserved_questions(np.array(ids), settings.split)
        shares = [
            own[::-1] if turned else own
            for own, turned in zip(table["shares"].to_pylist(), mask, strict=True)
        ]
        column = pa.array(shares, table.schema.field("shares").type)
        index = table.column_names.index("shares")
        pq.write_table(table.set_column(index, table.schema.field("shares"), column), file)
