"""The predictor against numbers of the published model, and the properties of its attention."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.predictors.gpo.network import (
    GPO,
    EncoderLayer,
    flatten_weights,
    get_weights,
    log_likelihood,
    segment_softmax,
    task_losses,
)
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import Task
from tests.support.examples import at_most
from tests.support.preferences import random_groups
from tests.support.reference import GROUPS, REFERENCE, reference_batch, reference_model

__all__ = ["reference_model"]

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True, params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread multiplies by numpy, several by torch: all must hold for both."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def attended(
    model: GPO, context_x: torch.Tensor, context_y: torch.Tensor, target_x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw mean and standard deviation of the targets."""
    x = torch.cat([context_x, target_x], dim=-2)
    y = torch.cat([context_y, target_x.new_zeros(target_x.shape[:-1])], dim=-1)
    return model.attend(model.embed(x, y), [context_x.shape[-2]], [target_x.shape[-2]])


@pytest.mark.parametrize("group", GROUPS)
def test_outputs_equal_the_published_models(reference_model: GPO, group: int) -> None:
    batch = reference_batch(group)
    rows = reference_model.embed(batch.x, batch.y)
    mean, std = reference_model.attend(rows, batch.context, batch.target)
    shares, same_std = reference_model(rows, batch.context, batch.target, batch.options)
    assert torch.equal(std, same_std)
    for name, value in (("mean", mean), ("std", std), ("prob", shares)):
        expected = REFERENCE[f"{name}/{group}"]
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_loss_and_gradients_equal_the_published_models(reference_model: GPO) -> None:
    batch = reference_batch(*GROUPS)
    losses, _ = task_losses(reference_model, batch)
    total = (losses * torch.tensor(batch.target)).sum()
    # The published loss divides by the number of padded rows.
    loss = total / (3 * REFERENCE["target_x"].shape[1])
    loss.backward()
    assert loss.item() == pytest.approx(float(REFERENCE["loss"]), abs=1e-5)
    for name, parameter in reference_model.named_parameters():
        expected = REFERENCE[f"g/{name}"]
        assert parameter.grad is not None
        difference = np.abs(parameter.grad.numpy() - expected).max()
        assert difference <= 1e-4 * np.abs(expected).max(), name


def plain_layer(layer: EncoderLayer, rows: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The layer as its formula reads, head by head."""
    attention = layer.self_attn
    query, key, value = (
        (source @ weight.T + bias).chunk(layer.nhead, dim=-1)
        for source, weight, bias in zip(
            (rows, context, context),
            attention.in_proj_weight.chunk(3),
            attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    attended = torch.cat(
        [
            (q @ k.T / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
            for q, k, v in zip(query, key, value, strict=True)
        ],
        dim=-1,
    )
    rows = layer.norm1(rows + attention.out_proj(attended))
    return layer.norm2(rows + layer.linear2(torch.relu(layer.linear1(rows))))


@at_most(20)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 4]), st.integers(0, 1000))
def test_gradients_equal_those_of_the_plain_formula(
    count: int, targets: int, nhead: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=12, nhead=nhead, num_layers=2).double()
    x, y = torch.randn(count + targets, 3).double(), torch.rand(count).double()
    loss = sum(part.square().sum() for part in attended(model, x[:count], y, x[count:]))
    first, last = model.encoder["layers"]
    rows = model.embed(x, torch.cat([y, torch.zeros(targets)]))
    rows = plain_layer(first, rows, rows[:count])
    mean, log_std = model.predictor(plain_layer(last, rows[count:], rows[:count])).unbind(dim=-1)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(
        mean.square().sum() + log_std.exp().square().sum(), parameters, retain_graph=True
    )
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), expected)


class Whole(torch.nn.Module):
    """A predictor from embeddings and shares to raw outputs."""

    def __init__(self, gpo: GPO) -> None:
        super().__init__()
        self.gpo = gpo

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return attended(self.gpo, *arguments)


@pytest.mark.slow
def test_gradcheck() -> None:
    torch.manual_seed(0)
    model = Whole(GPO(2, d_model=4, emb_depth=2, dim_feedforward=6, nhead=2, num_layers=2)).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    arguments = (torch.randn(3, 2).double(), torch.rand(3).double(), torch.randn(2, 2).double())

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = dict(zip(names, values, strict=True))
        result: tuple[torch.Tensor, ...] = torch.func.functional_call(model, weights, arguments)
        return result

    assert torch.autograd.gradcheck(outputs, parameters)


def test_flattened_weights_are_the_models_and_so_are_their_gradients(reference_model: GPO) -> None:
    start = get_weights(reference_model)
    weights = flatten_weights(reference_model, start.clone())
    parameters = list(reference_model.parameters())
    task_losses(reference_model, reference_batch(0))[0].backward()
    assert weights.grad is not None
    gradients = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
    assert torch.equal(weights.grad, torch.cat(gradients))
    weights += 1
    assert torch.equal(get_weights(reference_model), start + 1)
    assert parameters[0].data_ptr() == weights.data_ptr()


def test_a_batch_of_groups_equals_one_by_one(reference_model: GPO) -> None:
    rng = torch.Generator().manual_seed(0)
    context_x, target_x = torch.randn(2, 5, 24, generator=rng), torch.randn(2, 7, 24, generator=rng)
    context_y = torch.rand(2, 5, generator=rng)
    mean, std = attended(reference_model, context_x, context_y, target_x)
    for group in range(2):
        alone = attended(reference_model, context_x[group], context_y[group], target_x[group])
        torch.testing.assert_close(mean[group], alone[0])
        torch.testing.assert_close(std[group], alone[1])


@at_most(20)
@given(st.integers(0, 10_000))
def test_context_order_and_other_targets_change_nothing(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=8, nhead=2, num_layers=2)
    context_x, context_y = torch.randn(6, 3, generator=rng), torch.rand(6, generator=rng)
    target_x = torch.randn(4, 3, generator=rng)
    outputs = attended(model, context_x, context_y, target_x)
    order = torch.randperm(6, generator=rng)
    shuffled = attended(model, context_x[order], context_y[order], target_x)
    torch.testing.assert_close(shuffled, outputs)
    others = torch.cat([target_x[:2], torch.randn(9, 3, generator=rng)])
    mean, _ = attended(model, context_x, context_y, others)
    torch.testing.assert_close(mean[:2], outputs[0][:2])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 1000))
def test_segment_softmax_gives_distributions(options: list[int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = 30 * torch.randn(sum(options), generator=rng)
    shares = segment_softmax(values, torch.tensor(options))
    for segment, part in zip(shares.split(options), values.split(options), strict=True):
        torch.testing.assert_close(segment, part.softmax(dim=0))
        assert float(segment.sum()) == pytest.approx(1, abs=1e-5)


def test_likelihood_by_hand() -> None:
    # Normal(0.5, 1) at 0.5: -ln sqrt(2 pi) = -0.918939
    density = log_likelihood(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([0.5]))
    assert density.item() == pytest.approx(-0.918939, abs=1e-6)


def test_size_is_the_published_one() -> None:
    assert sum(parameter.numel() for parameter in GPO(4096).parameters()) == 1_188_354


@pytest.mark.parametrize(
    ("context_x", "context_y", "target_x", "message"),
    [
        ((0, 3), (0,), (2, 3), "at least one context"),
        ((4, 3), (4,), (0, 3), "at least one target row"),
        ((4, 2), (4,), (2, 2), "dim_x=3"),
        ((4, 3), (5,), (2, 3), "do not fit"),
    ],
)
def test_wrong_shapes_are_refused(
    context_x: tuple[int, ...], context_y: tuple[int, ...], target_x: tuple[int, ...], message: str
) -> None:
    model = GPO(3, d_model=8, num_layers=1)
    with pytest.raises(ValueError, match=message):
        attended(model, torch.zeros(context_x), torch.zeros(context_y), torch.zeros(target_x))


def test_only_one_dimensional_answers() -> None:
    with pytest.raises(ValueError, match="dim_y"):
        GPO(3, dim_y=2)


def test_task_loss_is_the_mean_over_target_rows(reference_model: GPO) -> None:
    batch = reference_batch(0)
    loss, predicted = task_losses(reference_model, batch)
    rows = reference_model.embed(batch.x, batch.y)
    shares, std = reference_model(rows, batch.context, batch.target, batch.options)
    assert torch.equal(shares, predicted)
    by_hand = (
        0.5 * ((batch.shares - shares) / std) ** 2 + std.log() + 0.5 * np.log(2 * np.pi)
    ).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


def ragged_tasks(rng: np.random.Generator, count: int) -> list[Task]:
    """Tasks of 1 to 5 context and target questions of 2 to 5 options."""
    (group,) = random_groups(rng, 1, rng.integers(2, 6, 10 * count), answered=1.0)
    ends = np.cumsum(rng.integers(1, 6, 2 * count))
    parts = np.split(np.arange(len(group)), ends)
    return [group.task(*pair) for pair in zip(parts[:-1:2], parts[1::2], strict=True)]


@pytest.mark.slow
@at_most(10)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_several_tasks_at_once_are_each_as_alone(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=8, nhead=2, num_layers=2)
    weights = flatten_weights(model, get_weights(model))
    assert weights.grad is not None
    tasks = ragged_tasks(rng, count)
    alone = [task_losses(model, Batch.gather([task], CPU)) for task in tasks]
    sum(loss.sum() for loss, _ in alone).backward()
    expected = weights.grad.clone()
    order = rng.permutation(count).tolist()
    for chosen in (range(count), order):
        weights.grad.zero_()
        losses, predicted = task_losses(model, Batch.gather([tasks[i] for i in chosen], CPU))
        losses.sum().backward()
        torch.testing.assert_close(losses, torch.cat([alone[i][0] for i in chosen]))
        torch.testing.assert_close(predicted, torch.cat([alone[i][1] for i in chosen]))
        torch.testing.assert_close(weights.grad, expected, atol=1e-5, rtol=1e-5)


def test_a_step_never_waits_for_the_device() -> None:
    # Tensors on the meta device have no values: what would have to read one raises.
    tasks = ragged_tasks(np.random.default_rng(0), 2)
    model = GPO(3, d_model=32, num_layers=2).to("meta")
    losses, _ = task_losses(model, Batch.gather(tasks, torch.device("meta")))
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
