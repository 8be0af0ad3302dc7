"""The interface of what runs a federation: this process, a simulation, or a deployment."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Self

from pluralllm_app.errors import UserError

POLL_SECONDS = 0.1

Ended = Literal["completed", "failed", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and why where it is not completed."""

    status: Ended
    error: str = ""

    def check(self) -> None:
        """Raise UserError with the reason unless the run is completed."""
        if self.status != "completed":
            raise UserError(self.error)


class Engine(ABC):
    """One run of the app, from entering the context to leaving it:

        with Simulation(APP, run_config, resources, log) as engine:
            outcome = engine.wait()

    What happens in the run is in its run directory, whichever engine it runs on; `follow` shows it.
    """

    @abstractmethod
    def start(self) -> None:
        """Start the run.

        Raises:
            UserError: it cannot be started; nothing is left of it then.
        """

    @abstractmethod
    def poll(self) -> Outcome | None:
        """How the run ended; None while it goes on.

        Raises:
            UserError: it turns out that the run could not be started.
        """

    @abstractmethod
    def end(self) -> None:
        """Leave nothing behind: where the run goes on in processes of this engine, end them."""

    def wait(self) -> Outcome:
        """Wait until the run has ended. Raises what `poll` does."""
        while (outcome := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return outcome

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
