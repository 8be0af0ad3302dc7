"""A whole `pluralllm run`: seconds from command to final table, and peak memory by kind of process.

    python benchmarks/whole_run.py --survey data/demo
    python benchmarks/whole_run.py --survey data/globalopinionqa --config conf/paper.toml

Start-up ends when the server knows which node holds which group. What a round takes beside local
steps is its time less the steps of all clients, shared evenly among the processes that took them.
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
from statistics import fmean
from typing import Any

import psutil

from pluralllm_app.files import read_json

CLIENT = "client actor (largest)"
KINDS = {
    "ray::ClientAppActor": CLIENT,
    "flwr-simulation": "server and simulation",
    "flower-superlink": "SuperLink",
}


@dataclass(frozen=True)
class Watched:
    """A run that has completed."""

    seconds: float  # from the command to its end
    start_up: float  # seconds of it until the server knows the groups
    record: dict[str, Any]  # run.json
    rounds: list[dict[str, Any]]  # lines of rounds.jsonl
    actors: int  # client processes
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
    start_up = None
    while process.poll() is None and not start_up:
        time.sleep(0.1)
        if read_json(out / "run.json").get("roster"):
            start_up = time.perf_counter() - start
    peaks: dict[str, int] = defaultdict(int)
    actors: set[int] = set()
    while process.poll() is None:
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(other.cmdline())
                for mark, kind in KINDS.items():
                    if mark in line and other.cwd().startswith(place):
                        peaks[kind] = max(peaks[kind], other.memory_full_info().uss)
                        if kind == CLIENT:
                            actors.add(other.pid)
        time.sleep(3)
    seconds = time.perf_counter() - start
    if process.returncode or start_up is None:
        sys.exit(process.returncode or "it never said which groups it has")
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    weights = hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()
    record = read_json(out / "run.json")
    return Watched(seconds, start_up, record, rounds, len(actors), dict(peaks), weights)


def main() -> None:
    run = watch(sys.argv[1:])
    in_rounds = sum(entry["seconds"] for entry in run.rounds)
    print(f"{run.seconds:.1f} s in all, {in_rounds:.1f} s in rounds, {run.start_up:.1f} s before")
    plain = [entry for entry in run.rounds if not entry["evaluation"]]
    if plain:
        whole = fmean(entry["seconds"] for entry in plain)
        steps = fmean(
            sum(own["seconds"] for own in entry["train"]["groups"].values()) for entry in plain
        )
        print(
            f"{whole:.2f} s a round without evaluation, {whole - steps / run.actors:.2f} s of it "
            f"beside the local steps of {run.actors} client processes"
        )
    for kind, peak in sorted(run.peaks.items()):
        print(f"{peak / 2**20:7.0f} MiB  {kind}")
    print(f"model.safetensors sha256 {run.weights}")


if __name__ == "__main__":
    main()
