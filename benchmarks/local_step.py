"""One local step, ours against the common way of writing it, in one run.

The common way: the published architecture as a masked nn.TransformerEncoder over context and target
rows alike, a softmax per question in a Python loop, torch's default Adam over one tensor a layer.
Tasks are those of conf/paper.toml on a prepared survey; both sides get the same ones.

    python benchmarks/local_step.py data/demo --threads 1
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from pluralllm_app.gpo import GPO, flatten_weights, get_weights
from pluralllm_app.optimizers import make_optimizer
from pluralllm_app.preferences import Task, TaskSize, draw_task, split_questions
from pluralllm_app.seeding import generator
from pluralllm_app.settings import Settings, flatten, read_defaults, read_toml
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.training import initial_model, run_steps

ROOT = Path(__file__).resolve().parent.parent


class CommonGPO(nn.Module):
    """The predictor with a mask: every row is a query and a key, targets are masked out as keys."""

    def __init__(self, ours: GPO) -> None:
        super().__init__()
        self.embedder, self.predictor = ours.embedder, ours.predictor
        layer = nn.TransformerEncoderLayer(128, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.load_state_dict(ours.state_dict())

    def loss(self, task: Task) -> Tensor:
        count = len(task.context_x)
        x = torch.cat([task.context_x, task.target_x])
        y = torch.cat([task.context_y, torch.zeros_like(task.target_y)])
        mask = torch.zeros(len(x), len(x), dtype=torch.bool)
        mask[:, count:] = True
        rows = self.encoder(self.embedder(torch.cat([x, y[:, None]], dim=-1))[None], mask=mask)[0]
        mean, log_std = self.predictor(rows[count:]).unbind(dim=-1)
        shares, start = torch.zeros_like(mean), 0
        for options in task.target_options.tolist():
            shares[start : start + options] = mean[start : start + options].softmax(dim=0)
            start += options
        density = torch.distributions.Normal(shares, log_std.exp()).log_prob(task.target_y)
        return -density.mean()


def seconds(step: Callable[[Task], float], tasks: list[Task]) -> list[float]:
    taken = []
    for task in tasks:
        start = time.perf_counter()
        step(task)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("survey", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    survey = PreparedSurvey.open(arguments.survey)
    config = read_defaults(ROOT / "pyproject.toml") | flatten(read_toml(ROOT / "conf/paper.toml"))
    settings = Settings.from_config(config | {"survey": str(survey.path), "out": "/unused"})
    preferences = survey.preferences(
        next(group.name for group in survey.groups if group.role == "train")
    )
    train = split_questions(preferences, "train", settings.split).train
    rng = generator(0, "benchmark")
    size = TaskSize(9, 90, 9, 90)
    tasks = [preferences.task(*draw_task(train, size, rng)) for _ in range(arguments.tasks)]

    ours = initial_model(survey.dim, settings)
    common = CommonGPO(initial_model(survey.dim, settings))
    weights = flatten_weights(ours, get_weights(ours))
    optimizer = make_optimizer(weights, settings.training)
    common_optimizer = torch.optim.Adam(common.parameters(), lr=3e-4)

    def our_step(task: Task) -> float:
        return run_steps(ours, weights, optimizer, [[task]], [3e-4]).loss

    def common_step(task: Task) -> float:
        common_optimizer.zero_grad()
        loss = common.loss(task)
        loss.backward()
        common_optimizer.step()
        return loss.item()

    first = (our_step(tasks[0]), common_step(tasks[0]))
    print(f"loss of the first task: {first[0]:.6f} ours, {first[1]:.6f} common")
    ratios, columns = [], ([], [])
    for task in tasks:  # in turn, so that both meet the same state of the machine
        pair = (seconds(our_step, [task])[0], seconds(common_step, [task])[0])
        columns[0].append(pair[0])
        columns[1].append(pair[1])
        ratios.append(pair[1] / pair[0])
    print(f"{survey.name}, {survey.dim} dimensions, {arguments.threads} thread(s), medians:")
    print(f"  ours   {1e3 * median(columns[0]):7.1f} ms a step")
    print(f"  common {1e3 * median(columns[1]):7.1f} ms a step")
    print(f"  common / ours {median(ratios):.2f}")


if __name__ == "__main__":
    main()
