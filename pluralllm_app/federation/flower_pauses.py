"""How long Flower's SuperNode waits until it looks again for a message, or for its app's answer.

Flower waits 3 s and 0.5 s. In a run, the next message comes soon after an answer, and most of a
short round would be such waiting. So a node looks sooner, and the less often the longer ago its
last answer was: n nodes that wait for a slow one do not keep the SuperLink busy.
"""

import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import SimpleNamespace
from typing import Any

_LEAST = 0.5  # seconds between looks for a message
_PART = 0.3  # of the time since the last answer
_ANSWER = 0.05  # seconds between looks for an answer, which cost no message


class Pauses:
    """Says how long to wait in place of Flower's pauses.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered = float("-inf")

    def answered(self) -> None:
        """A message was answered."""
        self._answered = self._clock()

    def instead_of(self, seconds: float) -> float:
        """How long to wait, at most as long as Flower would."""
        if seconds < 1:
            return min(seconds, _ANSWER)
        return min(seconds, max(_LEAST, _PART * (self._clock() - self._answered)))


def look_sooner() -> None:
    """Let Flower's loop wait by `Pauses`."""
    loop: Any = import_module("flwr.supernode.start_client_internal")
    pauses, push = Pauses(), loop._push_messages

    @wraps(push)
    def push_and_note(**arguments: Any) -> None:
        push(**arguments)
        pauses.answered()

    loop._push_messages = push_and_note
    loop.time = SimpleNamespace(sleep=lambda seconds: time.sleep(pauses.instead_of(seconds)))
