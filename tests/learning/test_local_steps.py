"""Local steps: schedule, optimisers, and that the same key gives the same bits."""

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.learning.local_steps import (
    PACK_ROWS,
    StepStatistics,
    initial_model,
    learning_rates,
    packs,
    run_steps,
    train_group,
)
from pluralllm_app.learning.optimizers import make_optimizer
from pluralllm_app.predictors.gpo.network import GPO, flatten_weights, get_weights, task_losses
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet, Task
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Make = Callable[..., Settings]


@pytest.fixture
def preferences(tiny_survey: PreparedSurvey) -> PreferenceSet:
    return tiny_survey.preferences("Alder")


def train(
    settings: Settings, preferences: PreferenceSet, seed: int = 0, round_number: int = 1, **kwargs
):
    model = initial_model(6, settings)
    result = train_group(
        model,
        preferences,
        settings.training,
        seed=seed,
        split=settings.split,
        round_number=round_number,
        rounds=2,
        **kwargs,
    )
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), result


def gathered(*tasks: Task) -> Batch:
    return Batch.gather(tasks, torch.device("cpu"))


def steps(model: GPO, settings: Settings, batches, rates, **kwargs) -> StepStatistics:
    weights = flatten_weights(model, get_weights(model))
    optimizer = make_optimizer(weights, settings.training)
    return run_steps(model, weights, optimizer, batches, rates, **kwargs)


def test_cosine_over_the_run_and_over_its_own_period(make_settings: Make) -> None:
    whole = make_settings({"learning-rate": 2.0}).training
    assert learning_rates(whole, 0, 3, 4) == pytest.approx([2, 1 + math.sqrt(0.5), 1])
    # The published schedule: T = 100 of 600 steps, as torch's CosineAnnealingLR gives it.
    paper = make_settings({"learning-rate": 3e-4, "schedule-steps": 100}).training
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    expected = []
    for _ in range(600):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert learning_rates(paper, 0, 600, 600) == pytest.approx(expected, abs=1e-9)
    constant = make_settings({"schedule": "constant", "learning-rate": 0.1}).training
    assert learning_rates(constant, 5, 2, 9) == [0.1, 0.1]


def test_same_key_same_bits_other_key_others(make_settings: Make, preferences) -> None:
    settings = make_settings()
    weights, _ = train(settings, preferences)
    assert torch.equal(weights, train(settings, preferences)[0])
    assert not torch.equal(weights, train(settings, preferences, seed=1)[0])
    assert not torch.equal(weights, train(settings, preferences, round_number=2)[0])


def test_bfloat16_steps_have_bits_of_their_own(make_settings: Make, preferences) -> None:
    settings = make_settings({"precision": "bfloat16"})
    weights, (statistics, _) = train(settings, preferences)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, train(settings, preferences)[0])
    exact, (expected, _) = train(make_settings({"precision": "float32"}), preferences)
    assert not torch.equal(weights, exact)
    assert statistics.loss == pytest.approx(expected.loss, abs=0.02)
    assert torch.equal(exact, train(make_settings({"precision": "auto"}), preferences)[0])


def test_bfloat16_gradients_are_sums_in_float32(make_settings: Make, preferences) -> None:
    model = initial_model(6, make_settings())
    weights = flatten_weights(model, get_weights(model))
    task = preferences.task(np.arange(9), np.arange(9, 20))
    assert weights.grad is not None
    gradients = {}
    for precision in (torch.float32, torch.bfloat16):
        weights.grad.zero_()
        loss, predicted = task_losses(model, gathered(task), precision)
        assert loss.dtype == predicted.dtype == torch.float32
        loss.backward()
        gradients[precision] = weights.grad.clone()
    exact, rounded = gradients.values()
    assert float((exact - rounded).norm()) < 0.02 * float(exact.norm())


def test_one_sgd_step_by_hand(make_settings: Make, preferences) -> None:
    settings = make_settings({"optimizer": "sgd", "learning-rate": 0.5})
    model = initial_model(6, settings)
    task = preferences.task(np.arange(3), np.arange(3, 6))
    other = preferences.task(np.arange(6, 9), np.arange(9, 12))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = task_losses(model, gathered(task, other))[0].mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    plain = make_settings({"optimizer": "sgd", "weight-decay": 0.0})
    statistics = steps(model, plain, [[task, other]], [0.5])
    assert statistics.loss == pytest.approx(loss.item(), abs=1e-6)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - 0.5 * gradient)


def test_packs_of_tasks_step_as_one_by_one(
    make_settings: Make, preferences, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings({"optimizer": "sgd"})
    batch = [
        preferences.task(np.arange(first, first + 3), np.arange(20, 20 + size))
        for first, size in ((0, 2), (3, 9), (6, 1), (9, 4))
    ]
    outcomes = []
    for most_rows in (0, 30, 1000):
        monkeypatch.setitem(PACK_ROWS, "cpu", most_rows)
        model = initial_model(6, settings)
        statistics = steps(model, settings, [batch, batch[::-1]], [0.1, 0.1])
        outcomes.append((get_weights(model), statistics.loss, statistics.js_divergence))
    for outcome in outcomes[1:]:
        torch.testing.assert_close(outcome, outcomes[0], atol=1e-6, rtol=1e-5)


def test_packs_keep_the_order_and_the_bound(preferences) -> None:
    tasks = [preferences.task(np.arange(2), np.arange(4, 4 + size)) for size in (1, 2, 8, 1, 1)]
    rows = [len(task.context.shares) + len(task.target.shares) for task in tasks]
    assert rows == [7, 10, 25, 7, 7]
    sizes = [[len(task.target) for task in pack] for pack in packs(tasks, 17)]
    assert sizes == [[1, 2], [8], [1, 1]]
    assert list(packs([], 17)) == []


def test_statistics_are_means_over_tasks(make_settings: Make, preferences) -> None:
    settings = make_settings({"optimizer": "sgd"})
    model = initial_model(6, settings)
    tasks = [
        preferences.task(np.arange(3), np.arange(3, 6)),
        preferences.task(np.arange(6, 9), np.arange(9, 17)),
    ]
    losses, predicted = task_losses(copy.deepcopy(model), gathered(*tasks))
    statistics = steps(model, settings, [[tasks[0]], [tasks[1]]], [1e-9, 1e-9])
    assert losses[0].item() != pytest.approx(losses[1].item(), abs=1e-3)
    assert statistics.loss == pytest.approx(losses.mean().item(), abs=1e-5)
    divergences = js_divergence(
        predicted.detach().numpy(),
        np.concatenate([task.target.shares for task in tasks]),
        np.concatenate([task.target.options for task in tasks]),
    )
    assert len(divergences) == 11  # each question counts alike, of whichever task it is
    assert statistics.js_divergence == pytest.approx(divergences.mean(), abs=1e-6)


def test_clipping_bounds_the_gradient(make_settings: Make, preferences) -> None:
    settings = make_settings({"optimizer": "sgd", "weight-decay": 0.0})
    model = initial_model(6, settings)
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    task = preferences.task(np.arange(3), np.arange(3, 6))
    steps(model, settings, [[task]], [1.0], clip_norm=1e-3)
    moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - start
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_proximal_term_pulls_towards_the_start(make_settings: Make, preferences) -> None:
    settings = make_settings(
        {"optimizer": "sgd", "local-steps": 20, "learning-rate": 0.05, "schedule": "constant"}
    )
    start = torch.nn.utils.parameters_to_vector(initial_model(6, settings).parameters()).detach()
    free = (train(settings, preferences)[0] - start).norm()
    held = (train(settings, preferences, proximal_mu=10.0)[0] - start).norm()
    assert held < 0.7 * free


def test_proximal_gradient_by_hand(make_settings: Make, preferences) -> None:
    # The second of two steps adds mu (w1 - w0) to the gradient; without it the step differs by it.
    settings = make_settings({"optimizer": "sgd", "weight-decay": 0.0, "momentum": 0.0})
    task = preferences.task(np.arange(3), np.arange(3, 6))

    def weights(count: int, mu: float) -> torch.Tensor:
        model: GPO = initial_model(6, settings)
        steps(model, settings, [[task]] * count, [0.1] * count, proximal_mu=mu)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    start = torch.nn.utils.parameters_to_vector(initial_model(6, settings).parameters()).detach()
    expected = weights(2, 0.0) - 0.1 * 3.0 * (weights(1, 0.0) - start)
    torch.testing.assert_close(weights(2, 3.0), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_kept_moments_continue_the_optimiser(
    make_settings: Make, preferences, optimizer: str
) -> None:
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    kept = {"client-optimizer-state": "keep", "schedule": "constant"}
    settings = make_settings({"optimizer": optimizer, **kept, **momentum})
    _, (_, state) = train(settings, preferences)
    assert state
    afresh, _ = train(settings, preferences, round_number=2)
    carried, (_, later) = train(settings, preferences, round_number=2, optimizer_state=state)
    assert not torch.equal(afresh, carried)
    assert set(later) == set(state)
    if optimizer != "sgd":
        assert later["steps"] == 2 * settings.training.local_steps


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_optimisers_step_as_those_of_torch(make_settings: Make, kind: str, decay: float) -> None:
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    settings = make_settings({"optimizer": kind, "weight-decay": decay, **momentum}).training
    rng = torch.Generator().manual_seed(0)
    ours = torch.randn(50, generator=rng)
    theirs = ours.clone()
    reference = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    expected = reference[kind]([theirs], lr=1.0, weight_decay=decay, **momentum)
    optimizer = make_optimizer(ours, settings)
    for rate in (0.1, 0.03, 0.2, 0.01):
        ours.grad = torch.randn(50, generator=rng)
        theirs.grad = ours.grad.clone()
        optimizer.step(rate)
        expected.param_groups[0]["lr"] = rate
        expected.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


# What a client process does: it says what it holds, scores and trains.
CLIENT = """
import json, sys
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.predictors.gpo.network import get_weights
from pluralllm_app.federation.messages import ARRAYS, CONFIG, arrays_to_record, request_to_record
from pluralllm_app.learning.base import Request
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.learning.local_steps import initial_model

config = json.loads(sys.argv[1])
dim = PreparedSurvey.open(config["survey"]).dim
weights = get_weights(initial_model(dim, Settings.from_config(config))).numpy()
grid = InProcessGrid(client_app.app, config, nodes=5)
request = request_to_record(Request(1, True, 32 * "0", 0))
content = RecordDict({ARRAYS: arrays_to_record({"weights": weights}), CONFIG: request})
messages = [
    Message(RecordDict(), 100, MessageType.QUERY),
    Message(content, 100, MessageType.TRAIN, group_id="1"),
    Message(content, 100, MessageType.EVALUATE, group_id="1"),
]
replies = list(grid.pull_messages(grid.push_messages(messages)))
print(any(reply.has_error() for reply in replies), len(replies))
print(*sorted(sys.modules))
"""


@pytest.mark.slow
def test_a_client_process_imports_no_more_than_it_needs(config: dict[str, Scalar]) -> None:
    # torch.optim's constructors import torch._dynamo; that, transformers and pandas take a client
    # as long as a round's work.
    given = json.dumps(config | {"client-optimizer-state": "keep"})
    output = subprocess.run([sys.executable, "-c", CLIENT, given], capture_output=True, text=True)
    outcome, modules = output.stdout.splitlines() or ["", ""]
    assert outcome == "False 3", output
    needless = {"torch._dynamo", "transformers", "pandas", "matplotlib", "altair"}
    assert needless.isdisjoint(modules.split())


@pytest.mark.slow
def test_a_server_process_imports_no_more_than_it_needs() -> None:
    script = "import sys, pluralllm_app.server_app, pluralllm_app.federation.rounds as _\n"
    script += "print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    needless = {"torch._dynamo", "transformers", "pandas", "matplotlib", "altair", "ray"}
    assert "pluralllm_app.federation.rounds" in output.stdout.split()
    assert needless.isdisjoint(output.stdout.split())
