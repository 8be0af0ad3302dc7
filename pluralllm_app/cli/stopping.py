"""The signals that stop a command, each as Ctrl-C does: by a KeyboardInterrupt."""

import signal
from typing import NoReturn

_stopped = False


def heed_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal stop this process, which no hang-up disturbs then.

    A command that a shell starts in the background, as in a script or by `nohup ... &`, may inherit
    that SIGINT or SIGHUP is ignored. It goes on ignoring it, as its caller asked.
    """
    signal.signal(signal.SIGTERM, _stop)
    for number, handler in ((signal.SIGINT, _stop), (signal.SIGHUP, _hang_up)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def hang_up() -> None:
    """Stop this process from any of its threads, unless it stops already."""
    heeded = signal.getsignal(signal.SIGHUP) is _hang_up
    signal.raise_signal(signal.SIGHUP if heeded else signal.SIGTERM)


def _stop(*_: object) -> NoReturn:
    global _stopped
    _stopped = True
    raise KeyboardInterrupt


def _hang_up(*_: object) -> None:
    if not _stopped:
        _stop()
