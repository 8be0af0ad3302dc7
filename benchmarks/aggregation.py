"""Averaging a round's updates: one vector in float64, against state dicts layer by layer.

python benchmarks/aggregation.py --dim 4096
"""

import numpy as np
from common_way import average
from flwr.app import Message, MessageType, RecordDict
from measuring import paired, paper_settings, parse, publish

from pluralllm_app.client_app import app
from pluralllm_app.federation.in_process import InProcessGrid
from pluralllm_app.federation.strategies import WEIGHT, make_strategy
from pluralllm_app.gpo import get_weights
from pluralllm_app.messages import METRICS, Update
from pluralllm_app.training import initial_model


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
    replies = []
    for group in range(arguments.groups):
        weights = start + rng.normal(size=start.shape).astype(np.float32)
        request = Message(RecordDict(), dst_node_id=group + 1, message_type=MessageType.TRAIN)
        reply = Message(Update(weights, 100, 0.0, 0.1, 1.0).to_content(), reply_to=request)
        reply.content.metric_records[METRICS][WEIGHT] = 100.0 + group
        replies.append(reply)
    strategy = make_strategy(settings)
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
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
