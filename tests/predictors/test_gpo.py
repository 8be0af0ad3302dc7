"""The predictor against numbers of the published model, and the properties of its attention."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pluralllm_app.predictors.gpo.network import (
    GPO,
    EncoderLayer,
    flatten_weights,
    get_weights,
    log_likelihood,
    segment_softmax,
    task_losses,
)
from pluralllm_app.preferences import Task

# Weights, inputs, outputs and gradients of one run of the published model on three groups.
REFERENCE = np.load(Path(__file__).with_name("gpo_reference.npz"))


@pytest.fixture(scope="module", autouse=True, params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread multiplies by numpy, several by torch: all must hold for both."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def reference_model() -> GPO:
    model = GPO(24, d_model=32, emb_depth=4, dim_feedforward=48, nhead=4, num_layers=3)
    weights = {
        name[2:]: torch.from_numpy(REFERENCE[name]) for name in REFERENCE if name.startswith("w/")
    }
    model.load_state_dict(weights, strict=True)
    return model


def reference_task(group: int) -> Task:
    def rows(name: str) -> torch.Tensor:
        kind = name.split("_")[0]
        return torch.from_numpy(REFERENCE[name][group, : REFERENCE[f"{kind}_lengths"][group].sum()])

    return Task(
        context_x=rows("context_x"),
        context_y=rows("context_y")[:, 0],
        target_x=rows("target_x"),
        target_y=rows("target_y")[:, 0],
        target_options=torch.from_numpy(REFERENCE["target_lengths"][group]),
    )


@pytest.mark.parametrize("group", [0, 1, 2])
def test_outputs_equal_the_published_models(reference_model: GPO, group: int) -> None:
    task = reference_task(group)
    mean, std = reference_model(task.context_x, task.context_y, task.target_x)
    shares = reference_model.predict(
        task.context_x, task.context_y, task.target_x, task.target_options
    )
    for name, value in (("mean", mean), ("std", std), ("prob", shares)):
        expected = REFERENCE[f"{name}/{group}"]
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_loss_and_gradients_equal_the_published_models(reference_model: GPO) -> None:
    tasks = [reference_task(group) for group in range(3)]
    outputs = [reference_model(task.context_x, task.context_y, task.target_x) for task in tasks]
    # The likelihood of all groups at once, flat.
    predicted = segment_softmax(
        torch.cat([mean for mean, _ in outputs]), torch.cat([task.target_options for task in tasks])
    )
    total = log_likelihood(
        predicted,
        torch.cat([std for _, std in outputs]),
        torch.cat([task.target_y for task in tasks]),
    ).sum()
    # The published loss divides by the number of padded rows.
    loss = -total / (3 * REFERENCE["target_x"].shape[1])
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


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 4]), st.integers(0, 1000))
def test_gradients_equal_those_of_the_plain_formula(
    count: int, targets: int, nhead: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=12, nhead=nhead, num_layers=2).double()
    x, y = torch.randn(count + targets, 3).double(), torch.rand(count).double()
    loss = sum(part.square().sum() for part in model(x[:count], y, x[count:]))
    first, last = model.encoder["layers"]
    rows = model.embed(x, torch.cat([y, torch.zeros(targets)]))
    rows = plain_layer(first, rows, rows[:count])
    mean, log_std = model.predictor(plain_layer(last, rows[count:], rows[:count])).unbind(dim=-1)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(
        mean.square().sum() + log_std.exp().square().sum(), parameters, retain_graph=True
    )
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), expected)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    model = GPO(2, d_model=4, emb_depth=2, dim_feedforward=6, nhead=2, num_layers=2).double()
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
    task_losses(reference_model, [reference_task(0)])[0].backward()
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
    mean, std = reference_model(context_x, context_y, target_x)
    for group in range(2):
        alone = reference_model(context_x[group], context_y[group], target_x[group])
        torch.testing.assert_close(mean[group], alone[0])
        torch.testing.assert_close(std[group], alone[1])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_context_order_and_other_targets_change_nothing(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=8, nhead=2, num_layers=2)
    context_x, context_y = torch.randn(6, 3, generator=rng), torch.rand(6, generator=rng)
    target_x = torch.randn(4, 3, generator=rng)
    mean, std = model(context_x, context_y, target_x)
    order = torch.randperm(6, generator=rng)
    torch.testing.assert_close(model(context_x[order], context_y[order], target_x), (mean, std))
    others = torch.cat([target_x[:2], torch.randn(9, 3, generator=rng)])
    torch.testing.assert_close(model(context_x, context_y, others)[0][:2], mean[:2])


@settings(deadline=None)
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
        ((4, 2), (4,), (2, 3), "context has 2 dimensions, targets 3"),
        ((4, 2), (4,), (2, 2), "dim_x=3"),
        ((4, 3), (5,), (2, 3), "do not fit"),
    ],
)
def test_wrong_shapes_are_refused(
    context_x: tuple[int, ...], context_y: tuple[int, ...], target_x: tuple[int, ...], message: str
) -> None:
    model = GPO(3, d_model=8, num_layers=1)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(context_x), torch.zeros(context_y), torch.zeros(target_x))


def test_only_one_dimensional_answers() -> None:
    with pytest.raises(ValueError, match="dim_y"):
        GPO(3, dim_y=2)


def test_saved_predictor_loads_equal(tmp_path: Path) -> None:
    model = GPO(3, d_model=8, num_layers=1)
    model.save_pretrained(tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    assert "[More Information Needed]" not in (tmp_path / "model" / "README.md").read_text()
    loaded = GPO.from_pretrained(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_a_saved_predictor_has_the_rights_of_other_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        GPO(3, d_model=8, num_layers=1).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {f"model.{name}": tensor for name, tensor in weights.items()},
        lambda weights: weights | {"extra": torch.zeros(1)},
        lambda weights: dict(list(weights.items())[1:]),
        lambda weights: {name: tensor[..., :1].clone() for name, tensor in weights.items()},
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, change: Callable) -> None:
    GPO(3, d_model=8, num_layers=1).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ValueError, match=f"{file} holds other weights than the config.json"):
        GPO.from_pretrained(tmp_path)


def test_pickled_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="pickle"):
        GPO._load_as_pickle(GPO(3, d_model=8, num_layers=1), "pytorch_model.bin", "cpu", True)


def test_task_loss_is_the_mean_over_target_rows(reference_model: GPO) -> None:
    task = reference_task(0)
    loss, predicted = task_losses(reference_model, [task])
    _, std = reference_model(task.context_x, task.context_y, task.target_x)
    by_hand = (
        0.5 * ((task.target_y - predicted) / std) ** 2 + std.log() + 0.5 * np.log(2 * np.pi)
    ).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


def ragged_task(rng: torch.Generator) -> Task:
    """A task of 1 to 5 context and target questions of 2 to 5 options."""
    rows, options = [], []
    for _ in range(2):
        questions = int(torch.randint(1, 6, (), generator=rng))
        options.append(torch.randint(2, 6, (questions,), generator=rng))
        shares = segment_softmax(torch.randn(int(options[-1].sum()), generator=rng), options[-1])
        rows += [torch.randn(len(shares), 3, generator=rng), shares]
    return Task(*rows, options[1])


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_several_tasks_at_once_are_each_as_alone(count: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    model = GPO(3, d_model=8, emb_depth=2, dim_feedforward=8, nhead=2, num_layers=2)
    weights = flatten_weights(model, get_weights(model))
    assert weights.grad is not None
    tasks = [ragged_task(rng) for _ in range(count)]
    alone = [task_losses(model, [task]) for task in tasks]
    sum(loss.sum() for loss, _ in alone).backward()
    expected = weights.grad.clone()
    order = torch.randperm(count, generator=rng).tolist()
    for chosen in (range(count), order):
        weights.grad.zero_()
        losses, predicted = task_losses(model, [tasks[i] for i in chosen])
        losses.sum().backward()
        torch.testing.assert_close(losses, torch.cat([alone[i][0] for i in chosen]))
        torch.testing.assert_close(predicted, torch.cat([alone[i][1] for i in chosen]))
        torch.testing.assert_close(weights.grad, expected, atol=1e-5, rtol=1e-5)


def test_a_step_never_waits_for_the_device() -> None:
    # Tensors on the meta device have no values: what would have to read one raises.
    task = reference_task(0)
    on_meta = Task(
        *(part.to("meta") for part in (task.context_x, task.context_y)),
        *(part.to("meta") for part in (task.target_x, task.target_y)),
        task.target_options,
    )
    model = GPO(24, d_model=32, num_layers=2).to("meta")
    losses, _ = task_losses(model, [on_meta, on_meta])
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
