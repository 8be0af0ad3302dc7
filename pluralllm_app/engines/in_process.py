"""A federation in this process: the same apps and messages, without Ray or a network."""

from collections.abc import Iterable
from typing import Any, NoReturn

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from pluralllm_app.engines.base import Engine, Outcome
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_compat import exception_reply, give_id, identify_process
from pluralllm_app.settings import Scalar, Settings


class InProcess(Engine):
    """A run in this process. `poll` returns when the run has ended, since nothing else runs it.

    Errors that are no `UserError` are raised by `poll`, with their traceback.

    Args:
        run_config: of the run; its survey says which groups there are.
    """

    def __init__(self, run_config: dict[str, Scalar]) -> None:
        self._run_config = run_config
        self._outcome: Outcome | None = None

    def start(self) -> None:
        from pluralllm_app import client_app
        from pluralllm_app.survey.prepared import PreparedSurvey

        self._settings = Settings.from_config(self._run_config)
        groups = PreparedSurvey.open(self._settings.path("survey")).groups
        self._grid = InProcessGrid(client_app.app, self._run_config, len(groups))

    def poll(self) -> Outcome:
        from pluralllm_app.federation.rounds import run_federation

        if self._outcome is None:
            try:
                run_federation(self._grid, self._settings, self._run_config)
                self._outcome = Outcome("completed")
            except UserError as error:
                self._outcome = Outcome("failed", str(error))
        return self._outcome

    def end(self) -> None:
        """Nothing is left to end: the run has no process of its own."""


class InProcessGrid(Grid):
    """Hands every message straight to the client app; nodes 100, 101, ... hold partitions 0, 1, ...

    Args:
        client_app: the app every node runs.
        run_config: its run config.
        nodes: how many nodes there are.
    """

    def __init__(self, client_app: ClientApp, run_config: dict[str, Scalar], nodes: int) -> None:
        identify_process()
        self.client_app = client_app
        self.contexts = {
            100 + partition: Context(
                run_id=1,
                node_id=100 + partition,
                node_config={"partition-id": partition, "num-partitions": nodes},
                state=RecordDict(),
                run_config=run_config,
            )
            for partition in range(nodes)
        }
        self.messages: dict[str, Message] = {}  # sent, not yet answered

    def ask(self, message: Message) -> Message | None:
        """The reply of a message's node; None if it stays silent."""
        return self.client_app(message, self.contexts[message.metadata.dst_node_id])

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(give_id(message))
            self.messages[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the nodes of these messages answer them, so that no reply waits here."""
        asked = [self.messages.pop(each) for each in message_ids if each in self.messages]
        return [reply for reply in map(self._answer, asked) if reply is not None]

    def _answer(self, message: Message) -> Message | None:
        try:
            return self.ask(message)
        except Exception as error:
            return exception_reply(error, message)

    # What the rounds never use.

    @property
    def run(self) -> NoReturn:
        raise NotImplementedError

    def set_run(self, run: Any) -> NoReturn:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError
