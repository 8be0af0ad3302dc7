"""Scores on fixed contexts: what is scored, averaged how, and that nothing else moves it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pluralllm_app.errors import FederationError
from pluralllm_app.evaluation import check_size, combine_draws, evaluation_draws, score_group
from pluralllm_app.federation.rounds import initial_model
from pluralllm_app.gpo import task_loss
from pluralllm_app.metrics import js_alignment
from pluralllm_app.preferences import hold_out
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Make = Callable[..., Settings]


def test_evaluation_groups_are_scored_on_all_but_the_context(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Dogwood")
    draws = evaluation_draws(preferences, "evaluation", 0.1, make_settings().evaluation)
    assert len(draws) == 2
    for context, target in draws:
        assert len(context) == 3
        assert sorted([*context, *target]) == list(range(30))
    assert (draws[0][0] != draws[1][0]).any()


def test_train_groups_are_scored_on_held_out_questions(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Alder")
    train, held_out = hold_out(preferences, 0.1, seed=0)
    for context, target in evaluation_draws(preferences, "train", 0.1, make_settings().evaluation):
        assert set(context) <= set(train)
        assert target.tolist() == held_out.tolist()


def test_contexts_depend_on_the_evaluation_seed_alone(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    preferences = tiny_survey.preferences("Dogwood")

    def contexts(overrides: dict[str, int]) -> list[list[int]]:
        settings = make_settings(overrides).evaluation
        draws = evaluation_draws(preferences, "evaluation", 0.1, settings)
        return [context.tolist() for context, _ in draws]

    assert contexts({}) == contexts({"seed": 9, "rounds": 7})
    assert contexts({}) != contexts({"evaluation-seed": 1})


def test_score_equals_predicting_draw_by_draw(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    settings = make_settings()
    model = initial_model(6, settings)
    preferences = tiny_survey.preferences("Dogwood")
    result = score_group(
        model, preferences, "evaluation", 0.1, settings.evaluation, "jensen-shannon"
    )
    totals, counts, losses = np.zeros(30), np.zeros(30), []
    for context, target in evaluation_draws(preferences, "evaluation", 0.1, settings.evaluation):
        task = preferences.task(context, target)
        loss, predicted = task_loss(model, task)
        losses.append(loss.item() * len(task.target_y))
        totals[target] += js_alignment(
            predicted.detach().numpy(), task.target_y.numpy(), task.target_options.numpy()
        )
        counts[target] += 1
    scored = counts > 0
    assert result.scores.questions.tolist() == preferences.questions[scored].tolist()
    np.testing.assert_allclose(result.scores.scores, totals[scored] / counts[scored], atol=1e-6)
    rows = sum(
        preferences.options[target].sum()
        for _, target in evaluation_draws(preferences, "evaluation", 0.1, settings.evaluation)
    )
    assert result.loss == pytest.approx(sum(losses) / rows, abs=1e-5)


def test_draws_are_averaged_over_those_that_score_a_question(tiny_survey: PreparedSurvey) -> None:
    preferences = tiny_survey.preferences("Dogwood")
    none = np.array([], dtype=np.int64)
    draws = [(none, np.array([0, 1])), (none, np.array([1, 4]))]
    combined = combine_draws(preferences, draws, [np.array([0.5, 0.2]), np.array([0.4, 0.9])])
    assert combined.questions.tolist() == [0, 1, 4]
    assert combined.scores == pytest.approx([0.5, 0.3, 0.9])


def test_evaluation_leaves_the_predictor_alone(
    make_settings: Make, tiny_survey: PreparedSurvey
) -> None:
    settings = make_settings()
    model = initial_model(6, settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score_group(
        model, tiny_survey.preferences("Alder"), "train", 0.1, settings.evaluation, "jensen-shannon"
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
    if fits:
        check_size("Elm", role, questions, settings.training, settings.evaluation)
        return
    with pytest.raises(FederationError, match=r"'Elm' has .* lower"):
        check_size("Elm", role, questions, settings.training, settings.evaluation)
