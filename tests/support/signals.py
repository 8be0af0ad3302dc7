"""Commands that get Ctrl-C's signal as in a terminal, or ignore it as after `nohup make test &`.

A process inherits what its parent ignores. So a command to which a test sends SIGINT is started by
`with_sigint`, whoever started the tests.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def with_sigint(handler: signal.Handlers, command: Sequence[str | Path]) -> list[str]:
    """The command line that starts a command with SIGINT at its default, or ignored."""
    return [sys.executable, __file__, handler.name, *map(str, command)]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.Handlers[sys.argv[1]])
    os.execv(sys.argv[2], sys.argv[2:])
