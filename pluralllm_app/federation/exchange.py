"""Send messages and fetch the replies one by one, with a bound on the waiting."""

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError

NOT_CONNECTED = "is not connected"

POLL_SECONDS = 0.02  # between looks for a reply, where Flower's own grids sleep up to 3
# A look costs nothing in a simulation, but over the network this process and the SuperLink work for
# it: the pause is so many times as long, though at most half a second.
POLL_TIMES, POLL_MOST = 9, 0.5


def exchange(
    grid: Grid, messages: Sequence[Message], timeout: float
) -> Iterator[tuple[int, Message | str]]:
    """Send `messages` (one per node) and wait at most `timeout` seconds for the replies.

    Yields:
        Each node's id with its reply, or with why there is none, in the order of the messages. A
        reply is fetched when it is its turn: until then it stays where it has arrived, so that
        however many there are, the caller holds one. Asking for the reply to a message also
        matches them, since a lost node's error reply does not carry its id.
    """
    sent = list(grid.push_messages(messages))
    if len(sent) != len(messages):
        raise FederationError(
            f"the SuperLink took {len(sent)} of {len(messages)} messages: is a message too large?"
        )
    deadline = time.monotonic() + timeout
    receivers = [message.metadata.dst_node_id for message in messages]
    for message_id, node in zip(sent, receivers, strict=True):
        # A message that could not be sent, e.g. to a node that has just left, has the id None.
        if not message_id:
            yield node, NOT_CONNECTED
        else:
            yield node, _fetch(grid, message_id, deadline) or f"no reply within {timeout:g} s"


def _fetch(grid: Grid, message_id: str, deadline: float) -> Message | None:
    """The reply to a message; None if there is none by `deadline`, of the monotonic clock."""
    while True:
        start = time.monotonic()
        for reply in grid.pull_messages([message_id]):
            return reply
        end = time.monotonic()
        if end >= deadline:
            return None
        time.sleep(min(max(POLL_SECONDS, POLL_TIMES * (end - start)), POLL_MOST))


class ChosenNodes:
    """The part of a grid that strategies sample from, showing only the nodes chosen for a round.

    Flower's strategies sample nodes by id from all that are connected; showing them the chosen
    ones makes every strategy train the groups chosen by name.
    """

    def __init__(self, node_ids: list[int]) -> None:
        self.node_ids = node_ids

    def get_node_ids(self) -> list[int]:
        return self.node_ids
