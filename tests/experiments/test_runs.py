"""The run directories of training without a federation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.experiments.runs import run_alone, run_centralized
from pluralllm_app.learning import centralized
from pluralllm_app.learning.registry import check_plain
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.refined.predictor import RefinedPredictor
from pluralllm_app.predictors.saved import load_predictor
from pluralllm_app.preferences import reserved_questions
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import flatten, read_toml
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, make_survey

pytestmark = pytest.mark.slow

Config = dict[str, Scalar]


def run(config: Config, budget: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train; returns run.json and the lines of rounds.jsonl."""
    settings = Settings.from_config(config)
    run_centralized(PreparedSurvey.open(settings.path("survey")), settings, config, budget)
    return read(config)


def read(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = Path(str(config["out"]))
    lines = (out / "rounds.jsonl").read_text().splitlines()
    return json.loads((out / "run.json").read_text()), [json.loads(line) for line in lines]


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


@pytest.mark.parametrize(
    ("changes", "budget", "error"),
    [
        ({}, "nonsense", "nonsense"),
        (
            {"optimizer": "sgd", "learning-rate": 1e30, "clip-norm": 0.0},
            "paper",
            "no longer finite",
        ),
    ],
)
def test_a_failure_is_recorded(config: Config, changes: Config, budget: str, error: str) -> None:
    config |= changes
    with pytest.raises(UserError, match=error):
        run(config, budget)
    record = json.loads((Path(str(config["out"])) / "run.json").read_text())
    assert record["status"] == "failed"
    assert error in record["error"]


def test_groups_alone_have_one_line(config: Config) -> None:
    settings = Settings.from_config(config)
    run_alone(PreparedSurvey.open(settings.path("survey")), settings, config)
    record, (entry,) = read(config)
    assert (record["status"], record["method"]) == ("completed", "local-only")
    assert (entry["round"], entry["train"]["tasks"]) == (2, 12)
    assert entry["evaluation"]["groups"]["Dogwood"]["loss"] is None


@pytest.mark.parametrize(
    ("name", "kind"), [("factors", FactorsPredictor), ("refined", RefinedPredictor)]
)
def test_factors_run_with_the_settings_of_their_file(
    config: Config, name: str, kind: type[ContextPredictor]
) -> None:
    config |= {"strategy": "fedmedian", "rounds": 9}
    settings = Settings.from_config(config)
    METHODS[name].run(PreparedSurvey.open(settings.path("survey")), settings, config)
    record, _ = read(config)
    preset = flatten(read_toml(ROOT / "conf" / f"{name}.toml"))
    assert preset.items() <= record["settings"].items()
    assert isinstance(load_predictor(settings.path("out") / "model"), kind)


@pytest.mark.parametrize(("key", "value"), [("predictor", "factors"), ("prior", "factors")])
def test_what_is_learned_is_not_for_methods_that_say_so_themselves(
    config: Config, key: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"{key} = 'factors' is for pluralllm run"):
        check_plain(Settings.from_config(config | {key: value}))


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
