"""One local step on questions of 4 options, ours against the common way of writing it.

    python benchmarks/local_step.py --dim 384
    python benchmarks/local_step.py --dim 4096 --threads 1
    python benchmarks/local_step.py --dim 384 --processes 2
    python benchmarks/local_step.py --dim 384 --questions 10 --tasks 8

With --processes, clients of one thread each also take steps side by side, as in a run, against the
common way on --threads.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import torch
from common_way import CommonGPO
from measuring import count_flop, matrix_peak, paired, paper_settings, parse, publish

from pluralllm_app.learning import local_steps
from pluralllm_app.learning.device import prepare_processor
from pluralllm_app.learning.local_steps import initial_model, run_steps
from pluralllm_app.learning.optimizers import make_optimizer
from pluralllm_app.predictors.gpo.network import flatten_weights, get_weights
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet, Task

OPTIONS = 4


def draw(dim: int, questions: int, tasks: int = 1) -> list[Task]:
    """Tasks of random numbers, each with as many context as target questions."""
    rng = np.random.default_rng(0)
    count = 2 * questions * tasks
    group = PreferenceSet(
        group="random",
        embeddings=rng.normal(size=(count * OPTIONS, dim)).astype(np.float16),
        questions=np.arange(count),
        first_rows=np.arange(count) * OPTIONS,
        options=np.full(count, OPTIONS),
        shares=rng.dirichlet(np.ones(OPTIONS), count).astype(np.float32).ravel(),
    )
    parts = np.split(np.arange(count), 2 * tasks)
    return [group.task(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


class OurSteps:
    """Steps of ours on the same random tasks, with the paper's optimiser."""

    def __init__(self, dim: int, questions: int, tasks: int) -> None:
        torch.manual_seed(0)
        settings = paper_settings()
        self.tasks = draw(dim, questions, tasks)
        self.model = initial_model(dim, settings)
        self.weights = flatten_weights(self.model, get_weights(self.model))
        self.optimizer = make_optimizer(self.weights, settings.training)

    def __call__(self) -> float:
        """Take one step; returns its loss."""
        return run_steps(self.model, self.weights, self.optimizer, [self.tasks], [3e-4]).loss


@contextmanager
def clients(count: int, *sizes: int) -> Iterator[Callable[[], None]]:
    """Yield what makes each of `count` processes take a step of `OurSteps(*sizes)`."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [  # daemons: none is left should the benchmark fail
        context.Process(target=serve, args=(there, *sizes), daemon=True) for _, there in pipes
    ]
    for process in processes:
        process.start()

    def step_each() -> None:
        for here, _ in pipes:
            here.send(True)
        for here, _ in pipes:
            here.recv()

    yield step_each
    for here, _ in pipes:
        here.send(False)
    for process in processes:
        process.join()


def serve(calls: Connection, *sizes: int) -> None:
    """Take a step of one thread for each call."""
    prepare_processor(1)
    step = OurSteps(*sizes)
    while calls.recv():
        step()
        calls.send(None)


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--dim", type=int, default=384, help="of the embeddings"),
            parser.add_argument("--questions", type=int, default=50, help="context and target"),
            parser.add_argument("--tasks", type=int, default=1, help="of the step"),
            parser.add_argument(
                "--pack-rows",
                type=int,
                default=local_steps.PACK_ROWS["cpu"],
                help="at once, at most",
            ),
            parser.add_argument(
                "--processes", type=int, default=0, help="of one thread, that step side by side"
            ),
            parser.add_argument("--repeats", type=int, default=40),
        ),
    )
    sizes = arguments.dim, arguments.questions, arguments.tasks
    our_step = OurSteps(*sizes)
    batches = [Batch.gather([task], torch.device("cpu")) for task in our_step.tasks]
    common = CommonGPO(our_step.model)
    common_optimizer = torch.optim.Adam(common.parameters(), lr=3e-4)

    local_steps.PACK_ROWS["cpu"] = arguments.pack_rows

    def one_by_one() -> float:
        local_steps.PACK_ROWS["cpu"] = 0
        loss = our_step()
        local_steps.PACK_ROWS["cpu"] = arguments.pack_rows
        return loss

    def common_step() -> float:
        common_optimizer.zero_grad()
        loss = 0.0
        for batch in batches:
            part = -common.densities(batch).mean() / len(batches)
            part.backward()
            loss += part.item()
        common_optimizer.step()
        return loss

    losses = our_step(), common_step()
    flop, peak = count_flop(our_step), matrix_peak()
    mine, theirs, ratio = paired(our_step, common_step, arguments.repeats)
    by_itself = {}
    if arguments.tasks > 1:
        _, alone, gain = paired(our_step, one_by_one, arguments.repeats)
        by_itself = {"ours task by task, ms": 1e3 * alone, "task by task / ours": gain}
    side_by_side = {}
    if count := arguments.processes:
        with clients(count, *sizes) as step_each:
            together, _, gain = paired(step_each, common_step, arguments.repeats)
        side_by_side = {
            f"{count} processes of ours, ms a step": 1e3 * together / count,
            f"common way / {count} processes of ours": gain * count,
        }
    publish(
        "local step",
        {
            "dimensions of the embeddings": arguments.dim,
            "context and target questions": arguments.questions,
            "tasks": arguments.tasks,
            "loss of the first step, ours": losses[0],
            "loss of the first step, common way": losses[1],
            "ours, ms": 1e3 * mine,
            "common way, ms": 1e3 * theirs,
            "common way / ours": ratio,
            **by_itself,
            **side_by_side,
            "GFLOP of a step of ours": flop / 1e9,
            "GFLOP/s of a step of ours": flop / mine / 1e9,
            "GFLOP/s of a 512 x 512 product": peak / 1e9,
            "share of that": flop / mine / peak,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
