"""Flower's strategies as ours: contributions go in as messages, arrays come out."""

from collections.abc import Iterator, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.serverapp.strategy import Strategy

from pluralllm_app.federation.messages import ARRAYS, METRICS
from pluralllm_app.learning.base import Contributions
from pluralllm_app.predictors.base import Arrays

WEIGHT = "weight"  # the one metric that Flower's strategies weigh by, besides those of the learner


def named(name: str, options: Mapping[str, float]) -> Strategy:
    """Flower's strategy of that name, which weighs by `WEIGHT`."""
    made: Strategy = getattr(strategy, name)(**options, weighted_by_key=WEIGHT)
    return made


def aggregate(strategy: Strategy, round_number: int, contributions: Contributions) -> Arrays:
    """What one of Flower's strategies, which weighs by `WEIGHT`, makes of contributions."""
    record, _ = strategy.aggregate_train(round_number, list(_messages(contributions)))
    return plain_arrays(record)


def _messages(contributions: Contributions) -> Iterator[Message]:
    for contribution in contributions:
        metrics = MetricRecord({**contribution.metrics, WEIGHT: contribution.weight})
        content = RecordDict({ARRAYS: flower_record(contribution.arrays), METRICS: metrics})
        # A strategy reads the content only; a message must have a receiver.
        yield Message(content, dst_node_id=1, message_type=MessageType.TRAIN)


def flower_record(arrays: Arrays) -> ArrayRecord:
    """Arrays as Flower's strategies read them: each by itself."""
    return ArrayRecord({name: Array(np.ascontiguousarray(each)) for name, each in arrays.items()})


def plain_arrays(record: ArrayRecord | None) -> Arrays:
    """The arrays of a record by name."""
    assert record is not None, "there was at least one contribution"
    return {name: array.numpy() for name, array in record.items()}
