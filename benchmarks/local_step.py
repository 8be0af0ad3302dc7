"""One local step on 50 + 50 questions of 4 options, ours against the common way of writing it.

python benchmarks/local_step.py --dim 384
python benchmarks/local_step.py --dim 4096 --threads 1
"""

import torch
from common_way import CommonGPO
from measuring import matrix_peak, paired, paper_settings, parse, publish
from torch.utils.flop_counter import FlopCounterMode

from pluralllm_app.gpo import flatten_weights, get_weights
from pluralllm_app.optimizers import make_optimizer
from pluralllm_app.preferences import Task
from pluralllm_app.training import initial_model, run_steps

QUESTIONS, OPTIONS = 50, 4


def draw(dim: int) -> Task:
    """A task of random numbers."""
    rows = QUESTIONS * OPTIONS
    shares = torch.rand(2, QUESTIONS, OPTIONS)
    context_y, target_y = (shares / shares.sum(-1, keepdim=True)).flatten(1)
    options = torch.full((QUESTIONS,), OPTIONS)
    return Task(torch.randn(rows, dim), context_y, torch.randn(rows, dim), target_y, options)


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--dim", type=int, default=384, help="of the embeddings"),
            parser.add_argument("--repeats", type=int, default=40),
        ),
    )
    torch.manual_seed(0)
    settings = paper_settings()
    task = draw(arguments.dim)
    ours = initial_model(arguments.dim, settings)
    common = CommonGPO(ours)
    weights = flatten_weights(ours, get_weights(ours))
    optimizer = make_optimizer(weights, settings.training)
    common_optimizer = torch.optim.Adam(common.parameters(), lr=3e-4)

    def our_step() -> float:
        return run_steps(ours, weights, optimizer, [[task]], [3e-4]).loss

    def common_step() -> float:
        common_optimizer.zero_grad()
        loss = -common.densities(task).mean()
        loss.backward()
        common_optimizer.step()
        return loss.item()

    losses = our_step(), common_step()
    with FlopCounterMode(display=False) as counter:
        our_step()
    flop, peak = counter.get_total_flops(), matrix_peak()
    mine, theirs, ratio = paired(our_step, common_step, arguments.repeats)
    publish(
        "local step",
        {
            "dimensions of the embeddings": arguments.dim,
            "loss of the first step, ours": losses[0],
            "loss of the first step, common way": losses[1],
            "ours, ms": 1e3 * mine,
            "common way, ms": 1e3 * theirs,
            "common way / ours": ratio,
            "GFLOP of a step of ours": flop / 1e9,
            "GFLOP/s of a step of ours": flop / mine / 1e9,
            "GFLOP/s of a 512 x 512 product": peak / 1e9,
            "share of that": flop / mine / peak,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
