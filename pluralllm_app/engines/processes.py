"""The processes of a simulation, and how all of them are ended.

`python -m pluralllm_app.engines.processes ROOT OUT` ends those of the simulation in ROOT, where its
command was killed, and says so in the run directory OUT.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARKER = "PLURALLLM_SIMULATION"
"""Environment variable of every process of a simulation: the directory of its files."""
_GRACE_SECONDS = 10.0


def end_processes(root: Path) -> None:
    """Kill all processes of the simulation whose files are in `root`, and remove the files.

    Processes are found even where their parents are gone. The calling process is spared. Returns
    once they have let go of their files and locks.
    """
    # They are not asked to end first: that takes seconds, and nothing of theirs is kept. It goes on
    # until a pass finds none, because each pass may miss a process that is just starting.
    killed: set[psutil.Process] = set()
    deadline = time.monotonic() + _GRACE_SECONDS
    while (found := set(_processes(str(root)))) or any(map(_holds_files, killed)):
        if time.monotonic() > deadline:
            break
        # One that saw another end would record that the run failed: all are halted before any ends.
        for end in (psutil.Process.suspend, psutil.Process.kill):
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    end(process)
        killed |= found
        time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold off what ends the command, so that an impatient second one leaves no processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, handlers, strict=True):
            signal.signal(number, handler)


def _holds_files(killed: psutil.Process) -> bool:
    """Whether the end of a killed process is still under way."""
    # A process loses its environment first, and its files with its last thread. What is left then
    # is a zombie, which may wait for its parent for ever.
    try:
        return killed.status() != psutil.STATUS_ZOMBIE or killed.num_threads() > 1
    except psutil.Error:
        return False


def _processes(root: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        # Ray's agents overwrite their environment with their title, but keep the directory.
        with suppress(psutil.Error):
            ours = process.environ().get(MARKER) == root or process.cwd().startswith(root)
            if ours and process.pid != os.getpid():
                yield process


def main(root: Path, out: Path) -> None:
    """End the simulation in `root`, which its command cannot any more."""
    from pluralllm_app.records.writer import close_unfinished

    end_processes(root)
    close_unfinished(out, "stopped", "the command was killed")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
