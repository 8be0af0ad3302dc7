"""Replies in whatever order they come: what is made of them, and how many are held."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation import exchange as module
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record, record_to_arrays
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.strategies.averages import average
from pluralllm_app.learning.base import Contribution
from pluralllm_app.settings import Scalar, Settings
from tests.support.examples import at_most
from tests.support.local_grid import LocalGrid

NODES = 6
RNG = np.random.default_rng(3)
UPDATES = RNG.normal(size=(NODES, 20_000)).astype(np.float32) * np.float32([[1e-6], [1e6]] * 3)
WEIGHTS = RNG.uniform(1, 1000, NODES)


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    monkeypatch.setattr(module, "time", Clock())


class Clock:
    """Time that passes only by sleeping."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Arrivals:
    """A grid at which the replies of nodes arrive in a given order, one with each look."""

    def __init__(self, order: Iterable[int]) -> None:
        self.order = iter(order)
        self.arrived: set[str] = set()

    def push_messages(self, messages: Sequence[Message]) -> list[str]:
        self.sent = {str(message.metadata.dst_node_id): message for message in messages}
        return list(self.sent)

    def get_node_ids(self) -> list[int]:
        return list(range(NODES))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        self.arrived |= {str(node) for node in [next(self.order, None)] if node is not None}
        for own in message_ids:
            if own in self.arrived:
                node = int(own)
                content = RecordDict({ARRAYS: arrays_to_record({"weights": UPDATES[node]})})
                yield Message(content, reply_to=self.sent[own])


def asked() -> list[Message]:
    return [Message(RecordDict(), node, MessageType.TRAIN) for node in range(NODES)]


def plain_average(nodes: Iterable[int]) -> np.ndarray:
    terms = [np.float64(WEIGHTS[node]) * UPDATES[node] for node in nodes]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return (total / sum(WEIGHTS[node] for node in nodes)).astype(np.float32)


@at_most(40)
@given(st.permutations(range(NODES)), st.integers(1, NODES))
def test_the_average_does_not_depend_on_the_order_of_arrival(order: list[int], come: int) -> None:
    grid = cast(Grid, Arrivals(order[:come]))
    answers = exchange(grid, asked(), timeout=1)
    contributions = (
        Contribution(
            record_to_arrays(answer.content.array_records[ARRAYS]), float(WEIGHTS[node]), {}
        )
        for node, answer in answers
        if not isinstance(answer, str)
    )
    result = average(contributions)["weights"]
    assert result.tobytes() == plain_average(sorted(order[:come])).tobytes()


def test_each_node_has_its_reply_or_why_there_is_none() -> None:
    class OneGone(Arrivals):
        def push_messages(self, messages: Sequence[Message]) -> list[str]:
            return ["" if own == "4" else own for own in super().push_messages(messages)]

    answers = dict(exchange(cast(Grid, OneGone([5, 3, 0, 1])), asked(), timeout=1))
    assert list(answers) == list(range(NODES))
    assert answers[2] == "no reply within 1 s"
    assert answers[4] == "is not connected"
    for node in (0, 1, 3, 5):
        reply = answers[node]
        assert isinstance(reply, Message)
        assert reply.metadata.src_node_id == node


def test_a_node_that_went_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    class Restarted(Arrivals):
        """Nodes 2 and 3 are away for 3 seconds, while node 0 still computes, then back."""

        def get_node_ids(self) -> list[int]:
            away = {2, 3} if 4 <= clock.now < 7 else set()
            return sorted(set(range(NODES)) - away)

        def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
            if clock.now < 10:  # all but node 2 have replied by then, node 3 before it left
                return iter(())
            return super().pull_messages(message_ids)

    answers = dict(exchange(cast(Grid, Restarted([0, 1, 3, 4, 5])), asked(), timeout=1000))
    assert answers[2] == "went away before it replied"
    assert all(isinstance(answers[node], Message) for node in (0, 1, 3, 4, 5))
    assert clock.now < 20


def test_a_reply_that_cannot_be_read_is_refused_alone() -> None:
    class Odd(Arrivals):
        """Flower fails to make a message of what node 1 sent; that of node 2 holds no records."""

        def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
            for reply in super().pull_messages(message_ids):
                if reply.metadata.src_node_id == 1:
                    raise DecodeError("no message")
                if reply.metadata.src_node_id == 2:
                    reply.__dict__["_content"] = ArrayRecord()
                yield reply

    answers = dict(exchange(cast(Grid, Odd(list(range(NODES)))), asked(), timeout=1))
    assert answers[1] == "refused: it sent what cannot be read (DecodeError)"
    assert answers[2] == "refused: it sent what cannot be read (no records)"
    assert all(isinstance(answers[node], Message) for node in (0, 3, 4, 5))


def test_a_superlink_that_takes_nothing_is_told() -> None:
    class Closed(Arrivals):
        def push_messages(self, messages: Sequence[Message]) -> list[str]:
            return []

    with pytest.raises(FederationError, match="took 0 of 6 messages"):
        list(exchange(cast(Grid, Closed([])), asked(), timeout=1))


def test_no_more_than_two_updates_are_held(config: dict[str, Scalar]) -> None:
    live: list[weakref.ref[Any]] = []
    held = []

    def count(partition: int, message: Message) -> Message:
        if message.metadata.message_type == "train":
            live.append(weakref.ref(message.content[ARRAYS]))
            held.append(sum(own() is not None for own in live))
        return message

    config |= {"rounds": 3, "evaluate-every": 2}
    grid = LocalGrid(client_app.app, config, nodes=5, reply=count)
    run_federation(grid, Settings.from_config(config), config)
    assert len(held) == 9
    assert max(held) <= 2  # the one that was added last, and the one that comes
