"""Send messages and fetch the replies one by one, with a bound on the waiting."""

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.flower_compat import MALFORMED

NOT_CONNECTED = "is not connected"
WENT_AWAY = "went away before it replied"
UNREADABLE = "refused: it sent what cannot be read ({})"

POLL_SECONDS = 0.02  # between looks for a reply, where Flower's own grids sleep up to 3
# A look costs nothing in a simulation, but over the network this process and the SuperLink work for
# it: the pause is so many times as long, though at most half a second.
POLL_TIMES, POLL_MOST = 9, 0.5
LOOK_SECONDS = 1.0  # between looks for nodes that are away


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
    receivers = [message.metadata.dst_node_id for message in messages]
    waiting = _Waiting(grid, receivers, timeout)
    for message_id, node in zip(sent, receivers, strict=True):
        # A message that could not be sent, e.g. to a node that has just left, has the id None.
        yield node, waiting.fetch(message_id, node) if message_id else NOT_CONNECTED


class _Waiting:
    """Waits for the replies of nodes, `timeout` seconds for all of them together.

    The SuperLink says that a node is lost only while it is away, and of the message asked for. So
    that the loss of a node that is back by the time it is its turn is not waited out, the nodes
    that go away are noted meanwhile.
    """

    def __init__(self, grid: Grid, nodes: Sequence[int], timeout: float) -> None:
        self._grid = grid
        self._nodes = set(nodes)
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._away: set[int] = set()

    def fetch(self, message_id: str, node: int) -> Message | str:
        """The reply to a message that a node got, or why there is none."""
        while True:
            start = time.monotonic()
            try:
                for reply in self._grid.pull_messages([message_id]):
                    content: object = reply.content if reply.has_content() else RecordDict()
                    if not isinstance(content, RecordDict):  # whatever Flower's types say
                        return UNREADABLE.format("no records")
                    return reply
            except MALFORMED as error:  # the grid has taken it, and cannot be asked again
                return UNREADABLE.format(type(error).__name__)
            if node in self._away:
                return WENT_AWAY
            end = time.monotonic()
            if end >= self._deadline:
                return f"no reply within {self._timeout:g} s"
            if end >= self._next_look:
                self._away |= self._nodes - set(self._grid.get_node_ids())
                self._next_look = end + LOOK_SECONDS
            time.sleep(min(max(POLL_SECONDS, POLL_TIMES * (end - start)), POLL_MOST))
