"""The benchmarks' stand-in for the common way computes what the published model computes."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pluralllm_app.evaluation import evaluation_draws, score_group
from pluralllm_app.gpo import GPO
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.training import initial_model
from tests.conftest import ROOT
from tests.test_gpo import REFERENCE, reference_model, reference_task

__all__ = ["reference_model"]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    sys.modules.pop("common_way", None)


def test_the_common_way_is_the_published_model(reference_model: GPO) -> None:
    from common_way import CommonGPO

    common = CommonGPO(reference_model)
    total = torch.zeros(())
    for group in range(3):
        task = reference_task(group)
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
    ours = score_group(model, preferences, "evaluation", *arguments, tiny_survey.metric)
    theirs = evaluate(CommonGPO(model), preferences, context)
    np.testing.assert_allclose(ours.scores.scores, theirs, atol=1e-5)
