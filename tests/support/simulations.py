"""What whole runs in Flower's simulation leave, and do not leave."""

from pathlib import Path

import psutil


def weights(out: Path) -> bytes:
    """The last weights of a run."""
    return (out / "model" / "model.safetensors").read_bytes()


def left_behind(simulations: Path) -> list[str]:
    """Command lines of processes that a test's simulations left running."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PLURALLLM_SIMULATION", "").startswith(str(simulations)):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
