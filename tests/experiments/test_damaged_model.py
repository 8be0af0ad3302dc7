"""A model that was damaged after its run costs one table of a comparison, which says so."""

from pathlib import Path

import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.command import CliRunner, write_settings


@pytest.mark.parametrize("damage", ["cut off", "of another survey"])
def test_a_damaged_model_is_told_after_the_tables(
    config: dict[str, Scalar], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    tiny, out = write_settings(config, tmp_path), tmp_path / "out"
    survey = PreparedSurvey.open(str(config["survey"]))
    for cell in open_comparison(out, config, survey, 1, ["federated", "consensus"]):
        run_cell(cell)
    model = out / "cells" / "federated" / "seed-0" / "model"
    if damage == "cut off":
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        save_predictor(GPOPredictor(GPO(7, d_model=8, num_layers=1)), model)
    command = ["compare", "--survey", str(config["survey"]), "--config", str(tiny), "--seeds", "1"]
    command += ["--out", str(out), "--method", "federated", "--method", "consensus"]
    result = CliRunner().invoke(app, command)
    assert "2 of 2 runs finished already" in result.output
    assert "Federated GPO" in result.output  # it was scored when it was trained
    assert "Left out: 50, 100" in result.output
    assert result.exit_code == 1
    assert isinstance(result.exception, UserError)
    message = str(result.exception)
    assert f"federated, seed 0: {model}" in message
    assert f"To train them again: rm -r {model.parent}, then repeat the command" in message
    assert (out / "scores.csv").exists()
