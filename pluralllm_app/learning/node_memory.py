"""A node's own memory between rounds, in files of its own: moments of an optimiser, sums it sent.

Flower would keep them in a node's context, but loses large ones, and all of them with the process.
What was kept after the last round that counted stays until a later round counts: a round that is
lost on its way to the server, or with the server, is learned again from the same memory.

Messages name files without their place: a node's errors reach the server.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.errors import FederationError


class NodeMemory:
    """What one group keeps in one run, by round, in files of the directory `path`.

    Args:
        path: of the directory.
        what: is kept, for messages.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what

    def find(self, round_number: int) -> dict[str, NDArray[Any]] | None:
        """What was kept after a round; None where it is not there."""
        file = self._file(round_number)
        return self.load(round_number) if file.exists() else None

    def load(self, round_number: int) -> dict[str, NDArray[Any]]:
        """What was kept after a round.

        Raises:
            FederationError: it is not there, or damaged.
        """
        try:
            kept: dict[str, NDArray[Any]] = load_file(self._file(round_number))
        except (OSError, SafetensorError) as error:
            raise FederationError(
                f"this node has not kept its {self.what} of round {round_number} in "
                f"{self._shown}: give it back the files it had, or start a new run"
            ) from error
        return kept

    def keep(self, round_number: int, arrays: Mapping[str, NDArray[Any]], counted: int) -> None:
        """Keep arrays after a round, and of earlier rounds only those of round `counted`.

        Raises:
            FederationError: the file cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
            write_atomically(self._file(round_number), content)
            kept = {self._file(number) for number in (round_number, counted)}
            for file in set(self.path.iterdir()) - kept:
                file.unlink()
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its {self.what} in {self._shown}: {error.strerror}"
            ) from error

    @property
    def _shown(self) -> str:
        return "/".join(self.path.parts[-2:])

    def _file(self, round_number: int) -> Path:
        return self.path / f"round-{round_number:04d}.safetensors"
