"""Training on pooled groups and on one group alone: budgets, rounds, determinism."""

from collections.abc import Callable

import numpy as np
import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.learning.budgets import budget_steps
from pluralllm_app.learning.centralized import CentralizedRound, train_alone, train_centralized
from pluralllm_app.learning.local_steps import initial_model, train_group
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Make = Callable[..., Settings]


@pytest.fixture
def pool(tiny_survey: PreparedSurvey) -> PooledSurvey:
    return PooledSurvey.read(tiny_survey)


def rounds(pool: PooledSurvey, settings: Settings, budget: str) -> list[CentralizedRound]:
    return list(train_centralized(pool, settings, budget))


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
def test_steps_of_a_budget(make_settings: Make, budget: str, overrides: dict, steps: int) -> None:
    assert budget_steps(budget, make_settings(overrides), 3) == steps


def test_impossible_budgets(make_settings: Make) -> None:
    with pytest.raises(UserError, match="'equal' is not one of paper, equal-steps"):
        budget_steps("equal", make_settings(), 3)
    with pytest.raises(UserError, match="no train groups"):
        budget_steps("paper", make_settings(), 0)


@pytest.mark.slow
def test_the_last_round_takes_the_steps_that_are_left(
    make_settings: Make, pool: PooledSurvey
) -> None:
    done = rounds(pool, make_settings({"local-steps": 30, "evaluate-every": 3}), "paper")
    assert [found.trained.steps for found in done if found.trained] == [30, 30, 30, 10]
    assert [found.trained.tasks for found in done if found.trained] == [90, 90, 90, 30]
    assert [bool(found.evaluation) for found in done] == [True, False, False, True, True]
    assert [found.ended_by for found in done] == [None, None, None, None, "budget"]


def test_same_seed_same_bits(make_settings: Make, pool: PooledSurvey) -> None:
    first, again, other = (
        rounds(pool, make_settings({"seed": seed}), "equal-steps")[-1].predictor.arrays()
        for seed in (0, 0, 1)
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_alone_is_a_client_that_never_hears_of_the_others(
    make_settings: Make, pool: PooledSurvey
) -> None:
    settings = make_settings()
    trained, evaluation = train_alone(pool, settings)
    assert (trained.steps, trained.tasks) == (4, 12)
    others = []
    for name in ("Alder", "Birch", "Cedar"):
        model = initial_model(pool.dim, settings)
        for number in (1, 2):
            train_group(
                model,
                pool.preferences[name],
                settings.training,
                seed=0,
                split=settings.split,
                round_number=number,
                rounds=2,
            )

        def score(group: str, model: GPO = model) -> float:
            return pool.score(GPOPredictor(model), group, settings).scores.mean

        assert evaluation.groups[name].alignment == pytest.approx(score(name), abs=1e-6)
        others.append(score("Dogwood"))
    dogwood = evaluation.groups["Dogwood"]
    assert dogwood.alignment == pytest.approx(np.mean(others), abs=1e-6)
    assert dogwood.loss is None


@pytest.mark.parametrize("method", ["centralized", "alone"])
def test_weights_that_diverge_are_refused(
    make_settings: Make, pool: PooledSurvey, method: str
) -> None:
    settings = make_settings({"optimizer": "sgd", "learning-rate": 1e30, "clip-norm": 0.0})
    with pytest.raises(UserError, match="no longer finite: lower learning-rate"):
        _ = train_alone(pool, settings) if method == "alone" else rounds(pool, settings, "paper")
