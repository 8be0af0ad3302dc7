"""A whole `pluralllm run`: seconds from command to final table, and peak memory by kind of process.

    python benchmarks/whole_run.py --survey data/demo
    python benchmarks/whole_run.py --survey data/globalopinionqa --config conf/paper.toml

Memory is the unique set size (what ending the process would free), sampled every 3 seconds only:
reading it slows a process down.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

KINDS = {
    "ray::ClientAppActor": "client actor (largest)",
    "flwr-simulation": "server and simulation",
    "flower-superlink": "SuperLink",
}


@dataclass(frozen=True)
class Watched:
    """A run that has completed."""

    seconds: float  # from the command to its end
    rounds: list[dict[str, Any]]  # lines of rounds.jsonl
    peaks: dict[str, int]  # bytes of the largest process of each kind
    weights: str  # SHA-256 of the last ones


def watch(arguments: Sequence[str]) -> Watched:
    """Run `pluralllm run` with `arguments`; exits as it does where it fails."""
    # All its processes work below a directory of this run's own. Sockets need a short path.
    place = tempfile.mkdtemp(prefix="b", dir="/tmp")
    out = Path(place) / "run"
    command = [str(Path(sys.executable).with_name("pluralllm")), "run", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(out)], env=os.environ | {"TMPDIR": place})
    peaks: dict[str, int] = defaultdict(int)
    while process.poll() is None:
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(other.cmdline())
                for mark, kind in KINDS.items():
                    if mark in line and other.cwd().startswith(place):
                        peaks[kind] = max(peaks[kind], other.memory_full_info().uss)
        time.sleep(3)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    weights = hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()
    return Watched(seconds, rounds, dict(peaks), weights)


def main() -> None:
    run = watch(sys.argv[1:])
    plain = [entry["seconds"] for entry in run.rounds if not entry["evaluation"]]
    in_rounds = sum(entry["seconds"] for entry in run.rounds)
    print(f"{run.seconds:.1f} s in all, {in_rounds:.1f} s in rounds")
    if plain:
        print(f"{sum(plain) / len(plain):.2f} s a round without evaluation")
    for kind, peak in sorted(run.peaks.items()):
        print(f"{peak / 2**20:7.0f} MiB  {kind}")
    print(f"model.safetensors sha256 {run.weights}")


if __name__ == "__main__":
    main()
