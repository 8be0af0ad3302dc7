"""Averaging a round's updates: one vector in float64, against state dicts layer by layer.

    python benchmarks/aggregation.py --dim 4096
    python benchmarks/aggregation.py --dim 4096 --groups 100

Memory is what averaging and the replies take at their peak, where the replies come one by one as
they do in a run, and where all of them are gathered first.
"""

import tracemalloc
from collections.abc import Callable

import numpy as np
from common_way import average
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from measuring import copy_speed, paired, paper_settings, parse, publish

from pluralllm_app.client_app import app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.federation.messages import METRICS, Update, record_of
from pluralllm_app.federation.strategies import WEIGHT, make_strategy
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
    InProcessGrid(app, {}, 1)  # sets what Flower needs to make messages

    def reply(group: int) -> Message:
        weights = start + rng.normal(size=start.shape).astype(np.float32)
        request = Message(RecordDict(), dst_node_id=group + 1, message_type=MessageType.TRAIN)
        reply = Message(Update(weights, 100, 0.0, 0.1, 1.0).to_content(), reply_to=request)
        record_of(reply.content, METRICS, MetricRecord)[WEIGHT] = 100.0 + group
        return reply

    strategy = make_strategy(settings)
    groups = range(arguments.groups)
    one_by_one = peak_mib(lambda: strategy.aggregate_train(1, map(reply, groups)))
    gathered = peak_mib(lambda: strategy.aggregate_train(1, list(map(reply, groups))))
    replies = list(map(reply, groups))
    states = [model.state_dict() for _ in replies]
    factors = [100.0 + group for group in range(arguments.groups)]
    mine, theirs, ratio = paired(
        lambda: strategy.aggregate_train(1, replies), lambda: average(states, factors), 20
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
            "peak MiB, replies one by one": one_by_one,
            "peak MiB, replies gathered": gathered,
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
