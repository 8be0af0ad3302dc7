"""The benchmarks of what leaks, and of what keeps it in: they find what is there to be found."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.federation import noised_updates
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TINY, make_survey
from tests.support.benchmarks import benchmarks, run

__all__ = ["benchmarks"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "steps", "rho"),
    [("sgd", 1, None), ("adamw", 1, None), ("sgd", 3, None), ("sgd", 1, 1e10)],
)
def test_an_update_tells_who_knows_the_draws_more_than_a_guess(
    tmp_path: Path, optimizer: str, steps: int, rho: float | None
) -> None:
    """Also under noise for groups that is next to none."""
    updates, sums = map(importlib.import_module, ("leakage_updates", "leakage_sums"))
    survey = make_survey(tmp_path / "tiny")
    rate = {"sgd": 0.1, "adamw": 0.002}[optimizer]
    own: dict[str, Scalar] = {"optimizer": optimizer, "learning-rate": rate, "local-steps": steps}
    config = read_defaults(ROOT / "pyproject.toml") | TINY | {"schedule": "constant"} | own
    settings = Settings.from_config(config)
    preferences = survey.preferences("Alder")
    update = updates.updated(preferences, settings, survey.dim)
    update = update if rho is None else updates.noised(update, rho)
    draws = updates.drawn(preferences, settings, updates.TRUE_SEED, update.round)
    found = updates.recovered(update, preferences, settings, draws, steps=40)
    asked = preferences.select(found.questions)
    guess = np.repeat(1 / asked.options, asked.options)
    scores = [sums.aligned(asked, shares, survey.metric) for shares in (found.shares, guess)]
    assert scores[0] > scores[1]


@pytest.mark.slow
def test_what_leaks_is_a_table_of_cells_that_are_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    leakage = importlib.import_module("leakage")
    survey = make_survey(tmp_path / "tiny")
    lines = tmp_path / "lines.jsonl"
    options = ["--survey", str(survey.path), "--lines", str(lines), "--attacks", "sums", "secure"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["leakage", *options])
        leakage.main()
    assert len(lines.read_text().splitlines()) == 2
    _, _, plain, secure = capsys.readouterr().out.splitlines()[-4:]
    assert plain.startswith("| factors, plain sum | 1.000 |")
    assert secure.startswith("| factors, secure sum of 3 groups, all known but two | 0.")


@pytest.mark.slow
def test_what_noise_for_groups_leaves_is_scored(
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    module = importlib.import_module("group_noise")
    tiny = ROOT / "pyproject.toml"
    monkeypatch.setattr(module, "read_defaults", lambda file: read_defaults(tiny) | TINY)
    monkeypatch.setattr(noised_updates, "discrete_gaussian", noised_updates.discrete_gaussian)
    options = ["--survey", str(tiny_survey.path), "--lines", str(tmp_path / "lines.jsonl")]
    monkeypatch.setattr(sys, "argv", ["group_noise", *options, "--rounds", "1", "--epsilons", "5"])
    module.main()
    _, _, clipped, noised = capsys.readouterr().out.splitlines()[-4:]
    assert clipped.startswith("| 3 | 1 | 1 | no noise, clipped | 0.")
    assert noised.startswith("| 3 | 1 | 1 | 5 | 0.")


def test_what_noise_for_respondents_costs_is_measured(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a cell that was measured before is not measured again."""
    monkeypatch.setattr(importlib.import_module("noise"), "EPSILONS", (1.0, None))
    lines = tmp_path / "lines.jsonl"
    lines.write_text(
        json.dumps(
            {
                "survey": tiny_survey.fingerprint,
                "respondents": 100,
                "answered": None,
                "most rounds": 1,
                "epsilon": 1.0,
                "seed": 0,
                "alignment": 0.25,
                "coverage": [0.5, 1.0],
                "rounds": 1,
            }
        )
        + "\n"
    )
    options = ["--survey", str(tiny_survey.path), "--respondents", "100", "--lines", str(lines)]
    results = run("noise", tmp_path, monkeypatch, *options, "--seeds", "1", "--rounds", "1")
    assert results["epsilon 1: alignment"] == 0.25
    assert results["no noise: alignment"] > 0.5
    # c sqrt(2 m) / n with c = 4.531: of 30 questions 0.351, of the 20 of Cedar 0.287, on average
    # (60 x 0.351 + 20 x 0.287) / 80.
    assert results["epsilon 1: noise on a share"] == "0.335 (0.287 to 0.351)"
