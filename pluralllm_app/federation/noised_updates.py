"""A group's update with its share of the noise, drawn once for each round of a run.

A round that is asked again, since its sum was not opened or the run was cut off, gets the same
noised vector: so what comes of it tells no more than the first time. What is asked with anything
changed is another draw, of which a run has as many as rounds: a node gives no more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.errors import FederationError, RefusedError
from pluralllm_app.privacy.accounting import discrete_gaussian
from pluralllm_app.secure_sum.fixed_point import Words

DIRECTORY = "noised-updates"
_VECTOR = "vector"
_WAIT_SECONDS = 600.0  # in which half a million numbers are drawn


@dataclass(frozen=True)
class NoisedUpdates:
    """The last noised vector that a group gave in a run.

    Args:
        memory: directory of the group.
        experiment: names the run.
        rounds: of the run.
        spend: notes once, under a name, that the noise of the run is spent, and refuses it by an
            error.
    """

    memory: Path
    experiment: str
    rounds: int
    spend: Callable[[str], None]

    def of(self, vector: Words, scale: float, asked: bytes) -> Words:
        """A vector with noise on all but its first word, which counts groups.

        Args:
            vector: of whole numbers modulo 2^64.
            scale: standard deviation of the noise.
            asked: a digest of all that was asked; noise that was drawn for it is used again.

        Raises:
            RefusedError: as many were drawn as the run has rounds, or see `spend`.
            FederationError: what was kept is damaged, or cannot be written.
        """
        self.memory.mkdir(parents=True, exist_ok=True)
        busy = "another process of this node draws noise"
        with held(self.memory / ".noised-updates.lock", busy, _WAIT_SECONDS):
            return self._once(vector, scale, asked)

    def _once(self, vector: Words, scale: float, asked: bytes) -> Words:
        kept = self._read()
        if kept and kept.asked == asked.hex():
            if kept.vector.shape != vector.shape:
                raise self._damaged()
            return kept.vector
        name, drawn = (kept.name, kept.drawn) if kept else (token_hex(16), 0)
        if drawn == self.rounds:
            raise RefusedError(
                f"this run's noise is for {self.rounds} rounds, and this group has noised as many "
                "updates: with another one epsilon would be exceeded"
            )
        self.spend(name)
        noised = vector.copy()
        noised[1:] += discrete_gaussian(np.zeros(len(vector) - 1, np.int64), scale).view(np.uint64)
        self._write(_Kept(name, drawn + 1, asked.hex(), noised))
        return noised

    @property
    def _file(self) -> Path:
        return self.memory / DIRECTORY / f"{self.experiment}.safetensors"

    def _read(self) -> "_Kept | None":
        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, framework="numpy") as file:
                said, vector = file.metadata(), file.get_tensor(_VECTOR)
            return _Kept(said["name"], int(said["drawn"]), said["asked"], vector)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error

    def _damaged(self) -> FederationError:
        return FederationError(
            f"{DIRECTORY}/{self._file.name}, this node's last update with noise, is damaged: give "
            "it back as it was, or start a new run"
        )

    def _write(self, kept: "_Kept") -> None:
        said = {"name": kept.name, "drawn": str(kept.drawn), "asked": kept.asked}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, save({_VECTOR: kept.vector}, said), secret=True)
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its update with noise in {DIRECTORY}: {error.strerror}"
            ) from error


@dataclass(frozen=True, eq=False)
class _Kept:
    name: str  # under which the noise of the run was noted
    drawn: int  # how many vectors were noised in the run
    asked: str
    vector: Words
