"""The process of a simulation, which `Simulation` starts with -m.

It also ends the simulation's processes where the one that started the simulation is killed: its own
standard input is closed then.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.federation.flower_simulation import simulate

OUTCOME, PLAN = "outcome.json", "plan.json"


def main(root: str, out: str) -> None:
    """Run what plan.json in the simulation's directory says, and write outcome.json beside it.

    Args:
        root: directory of the simulation.
        out: the run directory.
    """
    threading.Thread(target=_end_with_parent, args=(root, out), daemon=True).start()
    plan = json.loads(Path(root, PLAN).read_text("utf-8"))
    outcome = {"status": "completed", "error": ""}
    try:
        simulate(Path(plan.pop("app")), **plan)
    except Exception as error:
        from pluralllm_app.federation.flower_compat import LOGGER  # it takes Flower to import

        LOGGER.error("The simulation ended with an error", exc_info=error)
        outcome = {"status": "failed", "error": str(error) or repr(error)}
    write_atomically(Path(root, OUTCOME), json.dumps(outcome).encode())


def _end_with_parent(*directories: str) -> None:
    os.read(0, 1)
    # In a process of its own, outside of `root`: this one is ended as well.
    command = [sys.executable, "-m", "pluralllm_app.engines.processes", *directories]
    subprocess.Popen(command, cwd="/")


if __name__ == "__main__":
    main(*sys.argv[1:])
