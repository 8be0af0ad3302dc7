"""A Flower grid in this process: every message goes straight to the client app's handlers."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Fault = Callable[[int, Message], Message | None]


class LocalGrid(Grid):
    """Nodes 100, 101, ... hold partitions 0, 1, ... of a simulation.

    Args:
        client_app: the app every node runs.
        run_config: its run config.
        nodes: how many nodes there are.
        reply: what becomes of a node's reply; given the partition and the good reply, it returns
            another reply, raises (an error reply), or returns None (silence).
    """

    def __init__(
        self,
        client_app: ClientApp,
        run_config: dict[str, Any],
        nodes: int,
        reply: Fault = lambda partition, message: message,
    ) -> None:
        # What Flower sets in the process of a ServerApp.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.client_app = client_app
        self.contexts = {
            100 + i: Context(
                run_id=1,
                node_id=100 + i,
                node_config={"partition-id": i, "num-partitions": nodes},
                state=RecordDict(),
                run_config=run_config,
            )
            for i in range(nodes)
        }
        self.fault = reply
        self.replies: dict[str, Message] = {}
        self.sent: list[Message] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self.sent.append(message)
            message.metadata.__dict__["_message_id"] = str(uuid4())
            ids.append(message.metadata.message_id)
            node = message.metadata.dst_node_id
            try:
                reply = self.client_app(message, self.contexts[node])
                faulty = self.fault(node - 100, reply)
            except Exception as error:
                text = f"<class 'flwr.clientapp.client_app.ClientAppException'>:<'{error}'>"
                faulty = Message(Error(code=3, reason=text), reply_to=message)
            if faulty is not None:
                self.replies[message.metadata.message_id] = faulty
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        # Replies come in the opposite order of the messages, as they may in real life.
        ready = [message for message in message_ids if message in self.replies]
        return [self.replies.pop(message) for message in reversed(ready)]

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise NotImplementedError
