"""Scores on fixed contexts: what is scored, averaged how, and that nothing else moves it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pluralllm_app.errors import FederationError
from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.predictors.gpo.network import task_losses
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import reserved_questions, split_questions
from pluralllm_app.scoring.evaluation import (
    check_size,
    evaluate,
    evaluation_draws,
    score_shares,
)
from pluralllm_app.scoring.metrics import js_alignment
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Make = Callable[..., Settings]


@pytest.fixture
def config(config: dict[str, Scalar]) -> dict[str, Scalar]:
    """Settings with more than one context for each group."""
    return config | {"evaluation-draws": 2}


def test_evaluation_groups_are_scored_on_all_but_the_context(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Dogwood")
    settings = make_settings()
    draws = evaluation_draws(preferences, "evaluation", settings.split, settings.evaluation)
    assert len(draws) == 2
    for context, target in draws:
        assert len(context) == 3
        assert sorted([*context, *target]) == list(range(30))
    assert (draws[0][0] != draws[1][0]).any()


def test_train_groups_are_scored_on_held_out_questions(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Alder")
    settings = make_settings()
    split = split_questions(preferences, "train", settings.split)
    draws = evaluation_draws(preferences, "train", settings.split, settings.evaluation)
    for context, target in draws:
        assert set(context) <= set(split.train)
        assert target.tolist() == split.held_out.tolist()


def test_contexts_depend_on_the_evaluation_seed_alone(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Dogwood")

    def contexts(overrides: dict[str, int]) -> list[list[int]]:
        settings = make_settings(overrides)
        draws = evaluation_draws(preferences, "evaluation", settings.split, settings.evaluation)
        return [context.tolist() for context, _ in draws]

    assert contexts({}) == contexts({"seed": 9, "rounds": 7})
    assert contexts({}) != contexts({"evaluation-seed": 1})


def test_score_equals_predicting_draw_by_draw(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    settings = make_settings()
    model = initial_model(6, settings)
    preferences = tiny_survey.preferences("Dogwood")
    result = evaluate(
        GPOPredictor(model),
        preferences,
        "evaluation",
        settings.split,
        settings.evaluation,
        "jensen-shannon",
    )
    totals, counts, losses = np.zeros(30), np.zeros(30), []
    for context, target in evaluation_draws(
        preferences, "evaluation", settings.split, settings.evaluation
    ):
        task = preferences.task(context, target)
        loss, predicted = task_losses(model, Batch.gather([task], torch.device("cpu")))
        losses.append(loss.item() * len(task.target.shares))
        totals[target] += js_alignment(
            predicted.detach().numpy(), task.target.shares, task.target.options
        )
        counts[target] += 1
    scored = counts > 0
    assert result.scores.questions.tolist() == preferences.questions[scored].tolist()
    np.testing.assert_allclose(result.scores.scores, totals[scored] / counts[scored], atol=1e-6)
    rows = sum(
        preferences.options[target].sum()
        for _, target in evaluation_draws(
            preferences, "evaluation", settings.split, settings.evaluation
        )
    )
    assert result.loss == pytest.approx(sum(losses) / rows, abs=1e-5)


def test_draws_are_averaged_over_those_that_score_a_question(tiny_survey: PreparedSurvey) -> None:
    preferences = tiny_survey.preferences("Dogwood")
    none = np.array([], dtype=np.int64)
    draws = [(none, np.array([0, 1])), (none, np.array([1, 4]))]
    first, second = (preferences.select(target).shares for _, target in draws)
    second[:3] = [1, 0, 0]  # question 1 has 3 options
    scored = score_shares(preferences, draws, [first, second], "jensen-shannon")
    assert scored.questions.tolist() == [0, 1, 4]
    one = js_alignment([1, 0, 0], first[2:], np.array([3]))[0]
    assert scored.scores == pytest.approx([1, (1 + one) / 2, 1], abs=1e-3)


@pytest.mark.parametrize("role", ["train", "evaluation"])
def test_reserved_questions_are_in_no_context_and_always_scored(
    make_settings: Make, tiny_survey: PreparedSurvey, role: str
) -> None:
    settings = make_settings({"reserved-fraction": 0.3})
    preferences = tiny_survey.preferences("Alder")
    split = split_questions(preferences, role, settings.split)
    parts = np.concatenate([split.train, split.held_out, split.reserved])
    assert sorted(parts.tolist()) == list(range(30))
    mask = reserved_questions(preferences.questions, settings.split)
    assert split.reserved.tolist() == np.flatnonzero(mask).tolist()
    assert len(split.reserved) > 0
    draws = evaluation_draws(preferences, role, settings.split, settings.evaluation)
    for context, target in draws:
        assert not set(context) & set(split.reserved)
        assert set(split.reserved) <= set(target)


def test_reservation_does_not_depend_on_group_or_answers(make_settings: Make) -> None:
    split = make_settings({"reserved-fraction": 0.5}).split
    every = reserved_questions(np.arange(1000), split)
    assert 0.4 < every.mean() < 0.6
    some = np.array([3, 17, 400])
    assert reserved_questions(some, split).tolist() == every[some].tolist()
    assert not reserved_questions(some, make_settings().split).any()


def test_evaluation_leaves_the_predictor_alone(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    settings = make_settings()
    model = initial_model(6, settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(
        GPOPredictor(model),
        tiny_survey.preferences("Alder"),
        "train",
        settings.split,
        settings.evaluation,
        "jensen-shannon",
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("role", "questions", "fits"),
    [
        ("evaluation", 4, True),  # 3 of context and 1 target
        ("evaluation", 3, False),
        ("train", 5, True),  # 1 held out; 4 to train on: context-min 2 + target-min 2
        ("train", 4, False),
    ],
)
def test_too_small_groups_are_named(
    make_settings: Make, role: str, questions: int, fits: bool
) -> None:
    settings = make_settings()
    pool = questions - (role == "train")
    if fits:
        check_size("Elm", role, questions, pool, settings.training, settings.evaluation)
        return
    with pytest.raises(FederationError, match="'Elm' has") as refused:
        check_size("Elm", role, questions, pool, settings.training, settings.evaluation)
    said = str(refused.value).split("'")[3]
    lower = dict(pair.split("=") for pair in said.split())
    fitting = make_settings({name: int(value) for name, value in lower.items()})
    check_size("Elm", role, questions, pool, fitting.training, fitting.evaluation)


def test_a_group_with_hardly_any_question_is_left_out(make_settings: Make) -> None:
    settings = make_settings()
    with pytest.raises(FederationError, match="too small, leave it out"):
        check_size("Elm", "train", 2, 1, settings.training, settings.evaluation)
