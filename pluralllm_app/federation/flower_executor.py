"""Flower's SuperExec as a node runs it: the processes of its app are forked, and not started anew.

Flower starts a Python for each message, and importing torch and Flower takes it seconds, mostly
more than what the message asks for. Here one process has imported them (Python's forkserver), and
the process for a message is forked from that. The app's own code is imported for each message, so
that it is the code that the node has by then.
"""

import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import forkserver
from types import SimpleNamespace
from typing import Any

PROGRAM = "flower-superexec"
RUN = f"from {__name__} import main; main()"
"""Python's argument -c that runs this module: what -m runs is imported by the processes as well."""
_ONCE = [
    *("torch", "pandas", "flwr.clientapp", "flwr.supernode.cli", "filelock"),
    *("opendp.combinators", "opendp.measurements"),
]
"""What the app imports that is not its own; a package that is not installed is passed over.

The generator of opendp is OpenSSL's, which seeds itself anew in a process that was forked.
"""


def fork_apps() -> None:
    """Let Flower's SuperNode start this module in place of flower-superexec."""
    node: Any = import_module("flwr.supernode.start_client_internal")

    def start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
        program, *arguments = command
        if program != PROGRAM:
            raise ValueError(f"Flower starts {program}, not {PROGRAM}")
        return subprocess.Popen([sys.executable, "-c", RUN, *arguments])

    node.subprocess = SimpleNamespace(Popen=start)


def main() -> None:
    """Run flower-superexec with the arguments of this process; returns when it ends."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supernode.cli import flwr_clientapp

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_ONCE)
    forkserver.ensure_running()  # it imports while there is nothing to do

    def fork(command: Sequence[str], **_: Any) -> None:
        sys.argv = list(command)  # those of this process are read by now, and a new one gets them
        context.Process(target=flwr_clientapp).start()

    executor: Any = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    executor.subprocess = SimpleNamespace(Popen=fork, DEVNULL=None)
    flower_superexec()
