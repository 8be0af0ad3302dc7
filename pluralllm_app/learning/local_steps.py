"""Local training: a few optimiser steps on tasks drawn from a group's train questions."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.seeding import generator
from pluralllm_app.learning.optimizers import Optimizer, OptimizerState, make_optimizer
from pluralllm_app.predictors.gpo.network import GPO, flatten_weights, get_weights, task_losses
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet, Task, TaskSize, draw_task, split_questions
from pluralllm_app.settings import Settings, SplitSettings, TrainingSettings

# At most this many rows go through the network at once, by type of device. More take more memory
# and were no faster on a CPU; no other number was tried on a GPU.
PACK_ROWS = {"cpu": 1024, "cuda": 65536}

Losses = Callable[[GPO, Sequence[Task], torch.dtype], tuple[Tensor, Tensor]]
"""The loss of each task, [n], and the predicted shares of their target rows, [T], by the network in
a precision; see `network.task_losses`."""


@dataclass(frozen=True)
class StepStatistics:
    """What is known of a sequence of optimiser steps afterwards."""

    loss: float  # negative log-likelihood per target row, averaged over tasks, in nats
    js_divergence: float  # averaged over target questions, in nats; unlike the loss never negative


def losses_of(model: GPO, tasks: Sequence[Task], precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """`Losses` of the network as it is published."""
    return task_losses(model, Batch.gather(tasks, model.device), precision)


def initial_model(dim_x: int, settings: Settings, make: Callable[..., GPO] = GPO) -> GPO:
    """The untrained network of a run; its weights depend on the seed and the sizes alone.

    Args:
        dim_x: width of the survey's embeddings.
        settings: of the run.
        make: takes `dim_x` and the sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(settings.federation.seed, "weights").integers(2**63)))
        return make(dim_x, **asdict(settings.model))


def tasks_per_round(settings: TrainingSettings) -> int:
    """How many tasks a group trains on in a round."""
    return settings.local_steps * settings.tasks_per_step


def step_precision(settings: TrainingSettings) -> torch.dtype:
    """The precision of local steps; scores are always computed in float32.

    ``auto`` is float32 on every machine: bfloat16 has not been shown to be faster with the same
    scores on any.
    """
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def task_size(settings: TrainingSettings) -> TaskSize:
    """How many questions a training task draws."""
    return TaskSize(
        settings.context_min, settings.context_max, settings.target_min, settings.target_max
    )


def learning_rates(settings: TrainingSettings, first: int, count: int, total: int) -> list[float]:
    """Learning rates of the steps first .. first + count - 1, counted over a run of `total` steps.

    ``cosine`` gives lr (1 + cos(pi t / T)) / 2 with T = `schedule_steps`, or T = `total` where that
    is 0. After T steps the rate climbs again, as in the published protocol: with T below `total` it
    swings between lr and 0.
    """
    if settings.schedule == "constant":
        return [settings.learning_rate] * count
    period = settings.schedule_steps or total
    return [
        settings.learning_rate * (1 + math.cos(math.pi * step / period)) / 2
        for step in range(first, first + count)
    ]


def packs(tasks: Iterable[Task], most_rows: int) -> Iterator[list[Task]]:
    """Split tasks into runs of at most `most_rows` rows; a larger task makes a run of its own."""
    pack: list[Task] = []
    rows = 0
    for task in tasks:
        count = len(task.context.shares) + len(task.target.shares)
        if pack and rows + count > most_rows:
            yield pack
            pack, rows = [], 0
        pack.append(task)
        rows += count
    if pack:
        yield pack


def run_steps(
    model: GPO,
    weights: Tensor,
    optimizer: Optimizer,
    batches: Iterable[Sequence[Task]],
    rates: Sequence[float],
    clip_norm: float = 0.0,
    proximal_mu: float = 0.0,
    precision: torch.dtype = torch.float32,
    losses: Losses = losses_of,
) -> StepStatistics:
    """Take one optimiser step for each batch, on the loss averaged over the tasks of the batch.

    Args:
        model: the network, changed in place.
        weights: the vector that the model's parameters are views of, see `flatten_weights`.
        optimizer: over `weights`.
        batches: of tasks, one for each step.
        rates: the learning rate of each step.
        clip_norm: the gradient is scaled down to this norm; 0 for no clipping.
        proximal_mu: FedProx (arXiv 1812.06127) adds mu/2 ||w - w_start||^2 to the loss.
        precision: of the network's products, see `network.task_losses`.
        losses: what is made smaller.
    """
    assert weights.grad is not None
    start = weights.clone() if proximal_mu else weights
    found: list[Tensor] = []
    shares: list[Tensor] = []
    tasks: list[Task] = []
    for batch, rate in zip(batches, rates, strict=True):
        weights.grad.zero_()
        for pack in packs(batch, PACK_ROWS[weights.device.type]):
            pack_losses, predicted = losses(model, pack, precision)
            torch.autograd.backward(pack_losses.sum() / len(batch))
            found.append(pack_losses.detach())
            shares.append(predicted.detach())
            tasks += pack
        if proximal_mu:
            weights.grad.add_(weights - start, alpha=proximal_mu)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(weights, clip_norm)
        optimizer.step(rate)
    divergences = js_divergence(
        torch.cat(shares).cpu().numpy(),
        np.concatenate([task.target.shares for task in tasks]),
        np.concatenate([task.target.options for task in tasks]),
    )
    return StepStatistics(float(torch.cat(found).mean()), float(divergences.mean()))


def train_group(
    model: GPO,
    preferences: PreferenceSet,
    settings: TrainingSettings,
    *,
    seed: int,
    split: SplitSettings,
    round_number: int,
    rounds: int,
    proximal_mu: float = 0.0,
    optimizer_state: OptimizerState | None = None,
    losses: Losses = losses_of,
) -> tuple[StepStatistics, OptimizerState]:
    """Train a network for one round on the train questions of one group.

    Args:
        model: the network, changed in place.
        preferences: the answers of the group.
        settings: of local training.
        seed: of the run, or one that only the group knows; with the group's name and the round it
            determines which tasks are drawn.
        split: which questions are kept from training.
        round_number: counted from 1; places the round's steps in the schedule of all rounds.
        rounds: how many rounds the run has.
        proximal_mu: see `run_steps`.
        optimizer_state: of the group's last round; None starts afresh.
        losses: what is made smaller.

    Returns:
        Statistics of the round, and the optimiser's state after it, which is {} where the settings
        do not keep it.
    """
    train = split_questions(preferences, "train", split).train
    size = task_size(settings)
    rng = generator(seed, "tasks", preferences.group, round_number)
    batches = (
        [preferences.task(*draw_task(train, size, rng)) for _ in range(settings.tasks_per_step)]
        for _ in range(settings.local_steps)
    )
    first = (round_number - 1) * settings.local_steps
    rates = learning_rates(settings, first, settings.local_steps, rounds * settings.local_steps)
    weights = flatten_weights(model, get_weights(model))
    optimizer = make_optimizer(weights, settings)
    if optimizer_state:
        optimizer.load(optimizer_state)
    statistics = run_steps(
        model,
        weights,
        optimizer,
        batches,
        rates,
        settings.clip_norm,
        proximal_mu,
        step_precision(settings),
        losses,
    )
    kept = settings.client_optimizer_state == "keep"
    return statistics, optimizer.state() if kept else {}
