"""Noised answers in files of their own, so that the same are used again and nothing is drawn twice.

Messages name files without their place: a node's errors reach the server.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pluralllm_app.core.atomic import sync_directory, write_atomically
from pluralllm_app.core.segments import Ints
from pluralllm_app.errors import FederationError
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.respondents import Mechanism

DIRECTORY = "noised-answers"
_NOISED, _NAME, _ANSWERS = "noised", "name", "answers"


@dataclass(frozen=True, eq=False)
class KeptNoise:
    """The file of a group's answers with the noise of one mechanism.

    Args:
        path: of the file; its name says nothing of what anybody answered.
        rows: how many shares there are.
        answers: a digest of them, by which the file is known to be of these.
    """

    path: Path
    rows: int
    answers: str

    @classmethod
    def of(cls, memory: Path, mechanism: Mechanism, preferences: PreferenceSet) -> "KeptNoise":
        """That of these answers in the memory of their group."""
        name = _digest(
            np.array([mechanism.scale, mechanism.grid.sensitivity]),
            *(mechanism.grid.steps, preferences.questions, preferences.options),
        )
        path = memory / DIRECTORY / f"{name[:32]}.safetensors"
        return cls(path, len(preferences.shares), _digest(preferences.shares))

    def find(self) -> tuple[str, Ints] | None:
        """The name of the draw and what was drawn, [R] in steps; None where nothing was for these.

        Raises:
            FederationError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                said, noised = file.metadata(), file.get_tensor(_NOISED)
            name, answers = said[_NAME], said[_ANSWERS]
            if noised.shape != (self.rows,) or noised.dtype != np.int64:
                raise ValueError
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"{DIRECTORY}/{self.path.name}, this node's answers with noise, is damaged: give "
                "it back as it was, or remove it. The node then draws new noise, which costs as "
                "much again"
            ) from error
        return (name, noised) if answers == self.answers else None

    def draw_once(self, draw: Callable[[], Ints], spend: Callable[[str], None]) -> Ints:
        """What was drawn before or, if nothing was, is drawn now: [R] in steps.

        Args:
            draw: the mechanism.
            spend: called with the name of the draw; it notes what it costs, once for each name, and
                refuses it by an error. That is on the disk before anything is drawn.

        Raises:
            FederationError: the file is damaged, or cannot be written.
        """
        found = self.find()
        name, _ = found or (secrets.token_hex(16), None)
        spend(name)
        if found:
            return found[1]
        noised = draw()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = save({_NOISED: noised}, {_NAME: name, _ANSWERS: self.answers})
            write_atomically(self.path, content, secret=True)
            sync_directory(self.path.parent)
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its answers with noise in {DIRECTORY}: {error.strerror}"
            ) from error
        return noised


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
