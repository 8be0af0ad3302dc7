"""Commands that get a terminal's signals, or ignore them as after `nohup make test &`.

A process inherits what its parent ignores. So a command to which a test sends SIGINT or SIGHUP is
started by `with_handler`, whoever started the tests.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def with_handler(handler: signal.Handlers, command: Sequence[str | Path]) -> list[str]:
    """The command line that starts a command with both signals at their defaults, or ignored."""
    return [sys.executable, __file__, handler.name, *map(str, command)]


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.Handlers[sys.argv[1]])
    os.execv(sys.argv[2], sys.argv[2:])
