"""Averaging a round's updates: one vector in float64, against state dicts layer by layer.

    python benchmarks/aggregation.py --dim 4096
    python benchmarks/aggregation.py --dim 4096 --groups 100

Memory is what averaging and the updates take at their peak, where the updates come one by one as
they do in a run, and where all of them are gathered first.
"""

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
from common_way import average
from measuring import copy_speed, paired, paper_settings, parse, publish

from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning.base import Contribution
from pluralllm_app.learning.gpo import WEIGHTS
from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.predictors.gpo.network import get_weights


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--dim", type=int, default=384, help="of the embeddings"),
            parser.add_argument("--groups", type=int, default=8),
        ),
    )
    settings = paper_settings()
    model = initial_model(arguments.dim, settings)
    start = get_weights(model).numpy()
    rng = np.random.default_rng(0)

    def contribution(group: int) -> Contribution:
        weights = start + rng.normal(size=start.shape).astype(np.float32)
        return Contribution({WEIGHTS: weights}, 100.0 + group, {})

    strategy, before = make_strategy(settings), {WEIGHTS: start}

    def aggregate(contributions: Iterable[Contribution]) -> None:
        strategy.aggregate(1, before, {}, contributions)

    groups = range(arguments.groups)
    one_by_one = peak_mib(lambda: aggregate(map(contribution, groups)))
    gathered = peak_mib(lambda: aggregate(list(map(contribution, groups))))
    contributions = list(map(contribution, groups))
    states = [model.state_dict() for _ in contributions]
    factors = [100.0 + group for group in range(arguments.groups)]
    mine, theirs, ratio = paired(
        lambda: aggregate(contributions), lambda: average(states, factors), 20
    )
    bytes_read = arguments.groups * start.nbytes
    publish(
        "aggregation",
        {
            "parameters": start.size,
            "groups": arguments.groups,
            "ours, ms": 1e3 * mine,
            "common way, ms": 1e3 * theirs,
            "common way / ours": ratio,
            "GB/s of updates read by ours": bytes_read / mine / 1e9,
            "GB/s that a copy reads": copy_speed() / 1e9,
            "peak MiB, updates one by one": one_by_one,
            "peak MiB, updates gathered": gathered,
        },
        arguments.json,
    )


def peak_mib(action: Callable[[], object]) -> float:
    """The most memory that was allocated at once while `action` ran."""
    tracemalloc.start()
    action()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
