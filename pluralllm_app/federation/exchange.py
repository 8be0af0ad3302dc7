"""Send messages and gather the replies, with a bound on the waiting."""

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError

POLL_SECONDS = 0.02  # Flower's own grids sleep up to 3 s between looks


def exchange(
    grid: Grid, messages: Sequence[Message], timeout: float
) -> tuple[dict[int, Message], dict[int, str]]:
    """Send `messages` (one per node) and wait at most `timeout` seconds for the replies.

    Returns:
        The replies by node id; and why, by node id, there is none. Replies are matched by the
        message they answer, since a lost node's error reply does not carry its id.
    """
    receivers = [message.metadata.dst_node_id for message in messages]
    sent = list(grid.push_messages(messages))
    if len(sent) != len(receivers):
        raise FederationError(
            f"the SuperLink took {len(sent)} of {len(receivers)} messages: is a message too large?"
        )
    # A message that could not be sent, e.g. to a node that has just left, has the id None.
    waiting = {message: node for message, node in zip(sent, receivers, strict=True) if message}
    absent = {
        node: "is not connected"
        for message, node in zip(sent, receivers, strict=True)
        if not message
    }
    replies: dict[int, Message] = {}
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(waiting)):
            replies[waiting.pop(reply.metadata.reply_to_message_id)] = reply
        if waiting:
            time.sleep(POLL_SECONDS)
    return replies, absent | dict.fromkeys(waiting.values(), f"no reply within {timeout:g} s")


class ChosenNodes:
    """The part of a grid that strategies sample from, showing only the nodes chosen for a round.

    Flower's strategies sample nodes by id from all that are connected; showing them the chosen
    ones makes every strategy train the groups chosen by name.
    """

    def __init__(self, node_ids: list[int]) -> None:
        self.node_ids = node_ids

    def get_node_ids(self) -> list[int]:
        return self.node_ids
