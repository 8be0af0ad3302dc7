"""A group's updates with its shares of the noise, each drawn once and noted before it is.

A round that is asked again, since its sum was not opened or the run was cut off, gets the same
noised vector: so what comes of it tells no more than the first time. What is asked with anything
changed gets another, which costs as much again. All vectors of a round are kept until a later one
is noised, and an earlier one is then refused: else noise of one group could be drawn anew beneath
kept noise of the others, which a difference would take off.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pluralllm_app.core.atomic import sync_directory, write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.errors import FederationError, RefusedError
from pluralllm_app.privacy.accounting import discrete_gaussian
from pluralllm_app.secure_sum.fixed_point import Words

DIRECTORY = "noised-updates"
_VECTOR, _SUFFIX = "vector", ".safetensors"
_WAIT_SECONDS = 600.0  # in which half a million numbers are drawn


@dataclass(frozen=True)
class NoisedUpdates:
    """The noised vectors that a group gave in the last round of a run.

    Args:
        memory: directory of the group.
        experiment: names the run, in the server's words.
        spend: notes a draw of noise under a name, and refuses it by an error.
    """

    memory: Path
    experiment: str
    spend: Callable[[str], None]

    def of(self, vector: Words, scale: float, asked: bytes, round_number: int) -> Words:
        """A vector with noise on all but its first word, which counts groups.

        Args:
            vector: of whole numbers modulo 2^64.
            scale: standard deviation of the noise.
            asked: a digest of what was asked; a vector that was noised for the same, with the same
                scale, is given again.
            round_number: of the run.

        Raises:
            RefusedError: a later round was noised; or see `spend`.
            FederationError: what was kept is damaged, or cannot be written.
        """
        self.memory.mkdir(parents=True, exist_ok=True)
        busy = "another process of this node draws noise"
        with held(self.memory / ".noised-updates.lock", busy, _WAIT_SECONDS):
            return self._once(vector, scale, asked, round_number)

    def _once(self, vector: Words, scale: float, asked: bytes, round_number: int) -> Words:
        kept = {file: int(file.name.split("-")[0]) for file in self._place.glob(f"*{_SUFFIX}")}
        if round_number < (last := max(kept.values(), default=0)):
            raise RefusedError(
                f"round {round_number} is asked for after round {last}, whose update has noise"
            )
        digest = hashlib.sha256(asked + np.float64(scale).tobytes()).hexdigest()
        file = self._place / f"{round_number}-{digest}{_SUFFIX}"
        if file in kept:
            return self._read(file, vector.shape)
        self.spend(token_hex(16))
        noised = vector.copy()
        noised[1:] += discrete_gaussian(np.zeros(len(vector) - 1, np.int64), scale).view(np.uint64)
        self._write(file, noised)
        for older, number in kept.items():
            if number < round_number:
                older.unlink()
        return noised

    @property
    def _place(self) -> Path:
        return self.memory / DIRECTORY / self.experiment

    def _read(self, file: Path, shape: tuple[int, ...]) -> Words:
        try:
            noised = load(file.read_bytes())[_VECTOR]
            if noised.shape != shape or noised.dtype != np.uint64:
                raise ValueError
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise FederationError(
                f"{DIRECTORY}/{self.experiment}/{file.name}, an update of this node with noise, is "
                "damaged: give it back as it was, or start a new run"
            ) from error
        return noised

    def _write(self, file: Path, noised: Words) -> None:
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            write_atomically(file, save({_VECTOR: noised}), secret=True)
            sync_directory(self._place)
            sync_directory(self._place.parent)
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its update with noise in {DIRECTORY}: {error.strerror}"
            ) from error
