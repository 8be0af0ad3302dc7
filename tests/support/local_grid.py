"""The in-process grid with faults: what a test wants of a node's reply."""

from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.clientapp import ClientApp

from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.settings import Scalar

Fault = Callable[[int, Message], Message | None]


class LocalGrid(InProcessGrid):
    """Keeps what was sent; `reply` makes of a partition's good reply another one.

    It may raise (an error reply) or return None (silence).
    """

    def __init__(
        self,
        client_app: ClientApp,
        run_config: dict[str, Scalar],
        nodes: int,
        reply: Fault = lambda partition, message: message,
    ) -> None:
        super().__init__(client_app, run_config, nodes)
        self.fault = reply
        self.sent: list[Message] = []

    def ask(self, message: Message) -> Message | None:
        self.sent.append(message)
        good = super().ask(message)
        assert good is not None
        return self.fault(message.metadata.dst_node_id - 100, good)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        # Replies come in the opposite order of the messages, as they may in real life.
        return reversed(list(super().pull_messages(message_ids)))
