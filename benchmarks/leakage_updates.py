"""What an update of the transformer tells of a group's answers: attacks on local steps.

The attacker is the server. It knows the weights before and after, all settings, and the questions
with their vectors. It computes what the update would be if the group had certain shares, one
variable for each row of the questions that it takes to be used, and looks for the shares whose
update is nearest to the true one (arXiv 1906.08935): after one step by Levenberg and Marquardt, and
after several, where all derivatives would take too long, by L-BFGS. All local steps are taken one
after another as the group takes them, and differentiated through (arXiv 2206.12395): gradients are
clipped and go through SGD or AdamW, from moments that are 0.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from common_way import CommonGPO
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pluralllm_app.core.seeding import generator
from pluralllm_app.learning.local_steps import initial_model, task_size, train_group
from pluralllm_app.learning.optimizers import ADAM_BETAS, ADAM_EPSILON
from pluralllm_app.predictors.gpo.network import GPO, get_weights, segment_softmax
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet, draw_task, split_questions
from pluralllm_app.settings import Settings, TrainingSettings

CPU = torch.device("cpu")
ROUNDS = 60
TRUE_SEED, OTHER_SEED = 0, 1
MOST_SEARCHED = 40  # questions
ULP = 2.0**-24  # relative error of a float32
MOST_DAMPING, LONGEST = 1e6, 3.0  # of a step's logits
SETTLED = 1e-3  # part by which a step has to come nearer, or it is the last; see `_least_squares`
_SMOOTH = 1e-20  # keeps the root of a second moment from having no derivative

Places = NDArray[np.int64]
Loss = Callable[[Tensor], Tensor]


class Update(NamedTuple):
    """The change of the weights by a round of local steps."""

    before: GPO
    after: Tensor  # [P] weights
    round: int
    length: float = 0.0  # L2 norm of the change without noise, where there is noise
    deviation: float = 0.0  # of the noise on each weight


@dataclass(frozen=True)
class Recovered:
    """What an attack found."""

    questions: Places  # positions among the group's questions
    shares: NDArray[np.float64]  # of their rows, one after another


def updated(preferences: PreferenceSet, settings: Settings, dim: int) -> Update:
    """The update of a group in its first round; where it keeps moments, in its second."""
    model, state = initial_model(dim, settings), None
    keeps = settings.training.client_optimizer_state == "keep"
    for number in (1, 2) if keeps else (1,):
        before = initial_model(dim, settings)
        before.load_state_dict(model.state_dict())
        _, state = train_group(
            model,
            preferences,
            settings.training,
            seed=TRUE_SEED,
            split=settings.split,
            round_number=number,
            rounds=ROUNDS,
            optimizer_state=state or None,
        )
    return Update(before, get_weights(model), number)


def noised(update: Update, rho: float) -> Update:
    """An update with the noise for groups of a round that costs `rho`, clipped at its own length.

    A lower bound would scale the update down and the noise with it, a higher one the noise up.
    """
    change = update.after.double() - get_weights(update.before).double()
    length = float(change.norm())
    deviation = 2 * length / sqrt(2 * rho)
    noise = torch.randn(len(change), dtype=torch.double) * deviation
    return update._replace(after=update.after + noise, length=length, deviation=deviation)


def drawn(
    preferences: PreferenceSet, settings: Settings, seed: int, number: int
) -> list[tuple[Places, Places]]:
    """Context and target of each step of a round of the group, as a seed draws them."""
    rng = generator(seed, "tasks", preferences.group, number)
    train = split_questions(preferences, "train", settings.split).train
    size = task_size(settings.training)
    return [draw_task(train, size, rng) for _ in range(settings.training.local_steps)]


def recovered(
    update: Update,
    preferences: PreferenceSet,
    settings: Settings,
    draws: Sequence[tuple[Places, Places]],
    steps: int,
) -> Recovered:
    """The shares of all questions of some draws whose update is nearest to the true one.

    Of an update of one step with noise: the most probable ones, where logits have a standard normal
    distribution.
    """
    training = settings.training
    common = _differentiable(update.before)
    names = [name for name, _ in update.before.named_parameters()]
    shapes = [dict(common.named_parameters())[name].shape for name in names]
    start, after = get_weights(update.before).double(), update.after.double()
    observed = (start - after) / training.learning_rate
    wanted = observed - training.weight_decay * start * len(draws)
    error = torch.maximum(start.abs(), after.abs()) * ULP / training.learning_rate
    known = (wanted.abs() > 4 * error) | (training.optimizer == "sgd")
    length = update.length / training.learning_rate or wanted[known].norm()
    wanted, spread = wanted[known] / length, update.deviation / (update.length or 1.0)

    questions = np.unique(np.concatenate([part for pair in draws for part in pair]))
    options = preferences.options[questions]
    ends = np.cumsum(options)
    rows = {
        int(question): np.arange(end - count, end)
        for question, end, count in zip(questions, ends, options, strict=True)
    }
    batches = []
    for context, target in draws:
        batch = Batch.gather([preferences.task(context, target)], CPU)
        batch = replace(batch, x=batch.x.double(), shares=batch.shares.double())
        places = [np.concatenate([rows[int(each)] for each in part]) for part in (context, target)]
        batches.append((batch, *map(torch.from_numpy, places)))

    def losses(shares: Tensor) -> Iterator[Loss]:
        """The loss of each step, as a function of the weights [P]."""
        for batch, context, target in batches:
            given, sought = shares[context], shares[target]
            tried = replace(batch, y=torch.cat([given, torch.zeros_like(sought)]), shares=sought)

            def loss(weights: Tensor, tried: Batch = tried) -> Tensor:
                parts = weights.split([shape.numel() for shape in shapes])
                named = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
                with sdpa_kernel(SDPBackend.MATH):
                    mean, deviation = functional_call(common, named, (tried,))
                off = (tried.shares - mean) / deviation
                return (off**2 / 2 + deviation.log()).mean()

            yield loss

    def missed(logits: Tensor) -> Tensor:
        """By how much the update would be another one, and how improbable the logits are."""
        shares = segment_softmax(logits, torch.from_numpy(options))
        moved = _moved(start, losses(shares), training)[known]
        return torch.cat([moved / moved.norm() - wanted, spread * logits])

    logits = torch.zeros(int(options.sum()), dtype=torch.double)
    if len(draws) == 1:
        logits = _least_squares(missed, logits, steps, SETTLED * spread**2)
    else:
        logits = _nearest(missed, logits, steps)
    return Recovered(questions, segment_softmax(logits, torch.from_numpy(options)).numpy())


def _least_squares(missed: Loss, logits: Tensor, steps: int, least: float) -> Tensor:
    """Where |missed|^2 is least, by Levenberg and Marquardt: each step takes all derivatives.

    It ends with a step that takes less than `least` of it away or, where that is 0, than SETTLED of
    its root.
    """
    damping, rest = 1e-3, missed(logits)
    every = torch.eye(len(logits), dtype=torch.double)
    for _ in range(steps):

        def change(way: Tensor, at: Tensor = logits) -> Tensor:
            return jvp(missed, (at,), (way,))[1]

        along = vmap(change, chunk_size=8)(every)
        square, right, before = along @ along.T, along @ rest, rest.norm()
        while rest.norm() == before and damping < MOST_DAMPING:
            damped = square + damping * square.diagonal().mean() * every
            tried = logits - torch.linalg.solve(damped, right).clamp(-LONGEST, LONGEST)
            if (after := missed(tried)).norm() < before:
                logits, rest, damping = tried, after, damping / 5
            else:
                damping *= 4
        if rest.norm() ** 2 > (before**2 - least if least else ((1 - SETTLED) * before) ** 2):
            break
    return logits


def _nearest(missed: Loss, logits: Tensor, steps: int) -> Tensor:
    """The same by L-BFGS, which takes one derivative a step."""
    logits = logits.requires_grad_()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (missed(logits) ** 2).sum()
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    return logits.detach()


def _differentiable(model: GPO) -> CommonGPO:
    """The same network, of layers that can be differentiated twice."""
    common = CommonGPO(model)
    for part in (common.embedder, common.predictor):
        for place, layer in enumerate(part):
            if isinstance(layer, nn.Linear):
                part[place] = nn.Linear(layer.in_features, layer.out_features)
                part[place].load_state_dict(layer.state_dict())
    return common.double()


def _moved(start: Tensor, losses: Iterable[Loss], training: TrainingSettings) -> Tensor:
    """How far local steps go from `start` [P] but for weight decay, over the learning rate."""
    weights, total = start, torch.zeros_like(start)
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    one, two = ADAM_BETAS
    for number, loss in enumerate(losses, 1):
        gradient = grad(loss)(weights)
        if training.clip_norm:
            gradient = gradient * (training.clip_norm / gradient.norm()).clamp_max(1.0)
        if training.optimizer == "sgd":
            step = gradient
        else:
            first = one * first + (1 - one) * gradient
            second = two * second + (1 - two) * gradient**2
            root = (second / (1 - two**number) + _SMOOTH).sqrt()
            step = first / (1 - one**number) / (root + ADAM_EPSILON)
        total = total + step
        weights = weights - training.learning_rate * (step + training.weight_decay * weights)
    return total


def questions_found(
    update: Update, preferences: PreferenceSet, settings: Settings, dim: int
) -> tuple[float, float]:
    """The part that was used of the questions that an attacker without draws names; by chance.

    What the first layer has changed by is a sum over the rows of the tasks, so it takes one after
    the other the questions whose vectors explain that best (orthogonal matching pursuit).
    """
    draws = drawn(preferences, settings, TRUE_SEED, update.round)
    used = {int(each) for pair in draws for part in pair for each in part}
    candidates = split_questions(preferences, "train", settings.split).train
    change = get_weights(update.before) - update.after
    layer = change[: update.before.sizes["d_model"] * (dim + 1)].reshape(-1, dim + 1)[:, :dim]
    found = searched(preferences, candidates, layer, min(len(used), MOST_SEARCHED))
    return len(used & {*found}) / len(found), len(used) / len(candidates)


def searched(
    preferences: PreferenceSet, candidates: NDArray[np.int64], first: Tensor, count: int
) -> list[int]:
    """The `count` candidates whose vectors explain the first layer's gradient [d, dim] best."""
    rows = {
        int(place): _vectors(preferences, int(place)).T.astype(np.float64) for place in candidates
    }
    rest = first.double().numpy().T  # [dim, d]
    basis = np.empty((len(rest), 0))
    found: list[int] = []
    for _ in range(count):
        best, gain, span = -1, -1.0, basis
        for place, own in rows.items():
            if place in found:
                continue
            new, _ = np.linalg.qr(own - basis @ (basis.T @ own))
            explained = float(np.linalg.norm(new.T @ rest) ** 2) / own.shape[1]
            if explained > gain:
                best, gain, span = place, explained, new
        found.append(best)
        basis = np.concatenate([basis, span], axis=1)
        rest = rest - span @ (span.T @ rest)
    return found


def _vectors(preferences: PreferenceSet, place: int) -> NDArray[np.float32]:
    asked = preferences.task(np.array([place]), np.array([place]))
    batch = Batch.gather([asked], CPU)
    return batch.x[: batch.context[0]].numpy()
