"""Submits the run of a simulation, and follows it to its end; `Simulation` starts this with -m.

One process submits the run, follows it and asks how it ended, because each `flwr` command would
import Flower once more. It also ends the simulation's processes where the one that started the
simulation is killed: its own standard input is closed then.
"""

import os
import socket
import subprocess
import sys
import threading
import time

from pluralllm_app.federation.flower_commands import load_flwr


def main(root: str, port: str, outcome: str, out: str, *run: str) -> None:
    """Submit a run, and write how it ended.

    Args:
        root: directory of the simulation.
        port: of its SuperLink, which may still be starting.
        outcome: file to write what `flwr ls` prints to.
        out: the run directory.
        run: arguments of `flwr run`.
    """
    threading.Thread(target=_end_with_parent, args=(root, out), daemon=True).start()
    flwr = load_flwr()  # while the SuperLink starts
    _wait_for(int(port))
    flwr("run", *run)
    sys.stdout.flush()
    os.dup2(os.open(outcome, os.O_WRONLY | os.O_CREAT), 1)
    flwr("ls", "simulation", "--format", "json")


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _end_with_parent(*directories: str) -> None:
    sys.stdin.read()
    # In a process of its own, outside of `root`: this one ends with the SuperLink.
    command = [sys.executable, "-m", "pluralllm_app.engines.processes", *directories]
    subprocess.Popen(command, cwd="/")


if __name__ == "__main__":
    main(*sys.argv[1:])
