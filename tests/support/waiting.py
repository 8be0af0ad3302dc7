"""Waiting for what other processes do."""

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds after which a wait fails. No test takes as long, even where the machine is busy."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
