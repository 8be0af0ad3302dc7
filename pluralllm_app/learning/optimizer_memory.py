"""A node's own memory between rounds: the moments of its optimiser, in files of its own.

Flower would keep them in a node's context, but loses large ones, and all of them with the process.
The moments after the last round that counted are kept until a later round counts: a round that is
lost on its way to the server, or with the server, is trained again from the same moments.

Messages name files without their place: a node's errors reach the server.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.errors import FederationError
from pluralllm_app.learning.optimizers import OptimizerState


class Moments:
    """The moments of one group in one run, by round, in files of the directory `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, round_number: int) -> OptimizerState | None:
        """The moments after a round; None for round 0, before which there are none.

        Raises:
            FederationError: they are not there, or damaged.
        """
        if round_number == 0:
            return None
        try:
            state: OptimizerState = load_file(self._file(round_number))
        except (OSError, SafetensorError) as error:
            raise FederationError(
                f"this node has not kept its moments of round {round_number} in "
                f"{self._shown}: give it back the files it had, or start a new run"
            ) from error
        return state

    def keep(self, round_number: int, state: OptimizerState, counted: int) -> None:
        """Keep the moments after a round, and of earlier ones only those of round `counted`.

        Raises:
            FederationError: the file cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = save({key: np.ascontiguousarray(value) for key, value in state.items()})
            write_atomically(self._file(round_number), content)
            kept = {self._file(number) for number in (round_number, counted)}
            for file in set(self.path.iterdir()) - kept:
                file.unlink()
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its moments in {self._shown}: {error.strerror}"
            ) from error

    @property
    def _shown(self) -> str:
        return "/".join(self.path.parts[-2:])

    def _file(self, round_number: int) -> Path:
        return self.path / f"round-{round_number:04d}.safetensors"
