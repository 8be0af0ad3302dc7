"""What groups were rewarded so far, kept in a file from one run of a trainer to the next."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.json_text import load_json
from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import AnswersError


@dataclass
class History:
    """The mean reward of each group in each call, the oldest first."""

    groups: Sequence[str]
    calls: list[list[float]] = field(default_factory=list)

    def latest(self, count: int) -> Doubles:
        """[calls, groups] of the latest `count` calls, or of all where there are fewer."""
        first = max(len(self.calls) - count, 0)
        return np.array(self.calls[first:], np.float64).reshape(-1, len(self.groups))

    def add(self, means: Doubles) -> None:
        """Add a call.

        Args:
            means: [groups] of this call.

        Raises:
            AnswersError: one is no number.
        """
        self.calls.append(self._checked(means.tolist(), f"call {len(self.calls) + 1}"))

    def save(self, file: Path) -> None:
        """Write it as JSON; a crash leaves the old file or the new one."""
        content = {"groups": list(self.groups), "calls": self.calls}
        write_atomically(Path(file), json.dumps(content, allow_nan=False).encode())

    def restore(self, file: Path) -> None:
        """Take the calls of a file for those so far.

        Raises:
            AnswersError: it cannot be read, is of other groups, or holds what is no number.
        """
        try:
            content = load_json(Path(file))
        except (OSError, ValueError) as error:
            raise AnswersError(f"the history {file} cannot be read: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("calls"), list):
            raise AnswersError(f"{file} is no history of rewards: give one that `save` wrote")
        if content.get("groups") != list(self.groups):
            raise AnswersError(
                f"{file} is the history of {_told(content.get('groups'))}, and not of "
                f"{_told(list(self.groups))}: give the same groups in the same order"
            )
        self.calls = [
            self._checked(means, f"{file}: call {number}")
            for number, means in enumerate(content["calls"], 1)
        ]

    def _checked(self, means: object, place: str) -> list[float]:
        if not isinstance(means, list) or len(means) != len(self.groups):
            raise AnswersError(f"{place} needs a mean reward for each of {len(self.groups)} groups")
        for group, mean in zip(self.groups, means, strict=True):
            number = isinstance(mean, int | float) and not isinstance(mean, bool)
            if not number or not abs(mean) <= sys.float_info.max:
                raise AnswersError(
                    f"{place}: the mean reward of {group!r} is {mean!r}, which is no number: a "
                    "history with a gap cannot be gone on with; restore an older one"
                )
        return [float(mean) for mean in means]


def _told(groups: object) -> str:
    return ", ".join(map(repr, groups)) if isinstance(groups, list) else repr(groups)
