"""What one plain update tells of a group's answers: an attacker with and without the draws.

    python benchmarks/leakage.py --threads 1 --questions 9
    python benchmarks/leakage.py --threads 1 --questions 9 --optimizer adamw --learning-rate 0.002
    python benchmarks/leakage.py --threads 1 --survey data/globalopinionqa --local-steps 6 --steps 0

The attacker is the server. It knows the weights before and after the local steps, all settings, the
questions and their vectors, and which of them the group trains on. It does two things:

- it looks for the shares that give the same gradient (arXiv 1906.08935), by L-BFGS, where one step
  was taken on one task: with the questions that the step used, as with draws from the run's seed,
  and with those of another seed;
- it looks for the questions that were used, without knowing any draw: what the first layer has
  changed by is a sum over the rows of the tasks, so it takes one after the other the questions
  whose vectors explain that best (orthogonal matching pursuit), 40 at most.

Errors are means of absolute differences to the true shares of the target questions, over all of
their options. A guess says that all options of a question are equally popular. Better attacks than
these exist.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common_way import CommonGPO
from measuring import ROOT, parse, publish
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pluralllm_app.core.seeding import generator
from pluralllm_app.learning.local_steps import initial_model, task_size, train_group
from pluralllm_app.learning.optimizers import ADAM_EPSILON
from pluralllm_app.predictors.gpo.network import GPO, get_weights, segment_softmax
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet, Task, draw_task, split_questions
from pluralllm_app.settings import Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.demo import write_demo
from pluralllm_app.survey.prepared import PreparedSurvey

CPU = torch.device("cpu")
ROUND, ROUNDS = 1, 60
TRUE_SEED, OTHER_SEED = 0, 1
MOST_SEARCHED = 40
ULP = 2.0**-24  # relative error of a float32


def updated(preferences: PreferenceSet, settings: Settings, dim: int) -> tuple[GPO, Tensor]:
    """The network before a step of the group, and its weights [P] after it."""
    model = initial_model(dim, settings)
    train_group(
        model,
        preferences,
        settings.training,
        seed=TRUE_SEED,
        split=settings.split,
        round_number=ROUND,
        rounds=ROUNDS,
    )
    return initial_model(dim, settings), get_weights(model)


def gradient_of(before: Tensor, after: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The gradient [P] that a step followed, and where it is known [P], of weights [P].

    The first step of Adam goes by g / (|g| + epsilon), which tells g where that is not too near 1.
    """
    training = settings.training
    rate, decay = training.learning_rate, training.weight_decay
    before, after = before.double(), after.double()
    if training.optimizer == "sgd":
        return (before - after) / rate - decay * before, torch.ones(len(before)).bool()
    step = (before * (1 - rate * decay) - after) / rate
    left = (1 - step.abs()).clamp_min(1e-12)
    error = torch.maximum(before.abs(), after.abs()) * ULP / rate
    return ADAM_EPSILON * step / left, (error / left < 0.2) & (step.abs() > 4 * error)


def recovered(model: GPO, task: Task, wanted: Tensor, known: Tensor, steps: int) -> float:
    """The error of target shares that are found for a task, whose own are looked at last."""
    common = CommonGPO(model)
    for part in (common.embedder, common.predictor):
        for place, layer in enumerate(part):  # ours cannot be differentiated twice
            if isinstance(layer, nn.Linear):
                part[place] = nn.Linear(layer.in_features, layer.out_features)
                part[place].load_state_dict(layer.state_dict())
    named = dict(common.double().named_parameters())
    parameters = [named[name] for name, _ in model.named_parameters()]
    batch = Batch.gather([task], CPU)
    batch = replace(batch, x=batch.x.double(), shares=batch.shares.double())
    options = torch.from_numpy(task.context.options), batch.options
    context = torch.zeros(len(task.context.shares), dtype=torch.double, requires_grad=True)
    target = torch.zeros(len(task.target.shares), dtype=torch.double, requires_grad=True)
    direction = wanted[known] / wanted[known].norm()  # clipping has scaled it

    def closure() -> Tensor:
        optimizer.zero_grad()
        given = segment_softmax(context, options[0])
        shares = segment_softmax(target, options[1])
        tried = replace(batch, y=torch.cat([given, torch.zeros_like(shares)]), shares=shares)
        with sdpa_kernel(SDPBackend.MATH):
            value = -common.densities(tried).mean()
        found = torch.autograd.grad(value, parameters, create_graph=True)
        vector = torch.cat([part.flatten() for part in found])[known]
        missed = ((vector / vector.norm() - direction) ** 2).sum()
        missed.backward()
        return missed

    optimizer = torch.optim.LBFGS(
        [context, target],
        max_iter=steps,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    found = segment_softmax(target.detach(), options[1])
    return float((found - batch.shares).abs().mean())


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


def drawn(
    preferences: PreferenceSet, settings: Settings, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Context and target of each step of the group, as a seed draws them."""
    rng = generator(seed, "tasks", preferences.group, ROUND)
    train = split_questions(preferences, "train", settings.split).train
    size = task_size(settings.training)
    return [draw_task(train, size, rng) for _ in range(settings.training.local_steps)]


def attack(
    preferences: PreferenceSet, settings: Settings, dim: int, steps: int
) -> dict[str, float]:
    """What comes of the attacks on one group."""
    before, after = updated(preferences, settings, dim)
    wanted, known = gradient_of(get_weights(before), after, settings)
    tasks = drawn(preferences, settings, TRUE_SEED)
    used = set(np.concatenate([part for task in tasks for part in task]).tolist())
    candidates = split_questions(preferences, "train", settings.split).train
    layer = wanted[: before.sizes["d_model"] * (dim + 1)].reshape(-1, dim + 1)[:, :dim]
    found = searched(preferences, candidates, layer, min(len(used), MOST_SEARCHED))
    results = {
        "share of the questions found that were used": len(used & set(found)) / len(found),
        "share by chance": len(used) / len(candidates),
    }
    if len(tasks) > 1 or not steps:
        return results
    [(context, target)] = tasks
    task = preferences.task(context, target)
    [guessed] = drawn(preferences, settings, OTHER_SEED)
    uniform = np.repeat(1 / task.target.options, task.target.options)
    return results | {
        "error of a guess": float(np.abs(task.target.shares - uniform).mean()),
        "error, draws known": recovered(before, task, wanted, known, steps),
        "error, draws guessed": recovered(before, preferences.task(*guessed), wanted, known, steps),
    }


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, help="prepared; default: the demo"),
            parser.add_argument("--groups", type=int, default=5, help="that are attacked"),
            parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd"),
            parser.add_argument("--learning-rate", type=float, default=0.1),
            parser.add_argument("--local-steps", type=int, default=1, help="of the update"),
            parser.add_argument("--questions", type=int, help="context and target, at most"),
            parser.add_argument("--steps", type=int, default=80, help="of L-BFGS; 0: only search"),
        ),
    )
    with tempfile.TemporaryDirectory() as directory:
        path = arguments.survey or Path(directory) / "demo"
        if not arguments.survey:
            write_demo(path)
        survey = PreparedSurvey.open(path)
        config = read_defaults(ROOT / "pyproject.toml") | {
            "local-steps": arguments.local_steps,
            "optimizer": arguments.optimizer,
            "learning-rate": arguments.learning_rate,
            "weight-decay": 0.0,
            "schedule": "constant",
        }
        if arguments.questions:
            config |= {"context-max": arguments.questions, "target-max": arguments.questions}
        settings = Settings.from_config(config)
        train = [group.name for group in survey.groups if group.role == "train"]
        results = [
            attack(survey.preferences(name), settings, survey.dim, arguments.steps)
            for name in train[: arguments.groups]
        ]
    publish(
        "leakage",
        {
            "survey": survey.name,
            "groups": len(results),
            "optimizer": arguments.optimizer,
            "local steps": arguments.local_steps,
            **{key: float(np.mean([each[key] for each in results])) for key in results[0]},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
