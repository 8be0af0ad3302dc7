"""A whole `pluralllm run`: seconds from command to final table, CPU and memory by kind of process.

    python benchmarks/whole_run.py --survey data/demo
    python benchmarks/whole_run.py --survey data/globalopinionqa --config conf/paper.toml --check

Start-up ends when the server knows which node holds which group. What a round takes beside local
steps is its time less the steps of all clients, shared evenly among the processes that took them.
CPU seconds, which other work on the machine changes less, are of all processes of the run; `others`
are the command itself and Ray's own. Memory is the unique set size (what ending the process would
free), sampled every 3 seconds only: reading it slows a process down. With another checkout in
PYTHONPATH, that one is measured.
"""

import argparse
import hashlib
import json
import logging
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
from measuring import Results, publish, seconds

from pluralllm_app import client_app
from pluralllm_app.core.atomic import read_json
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

CLIENT = "clients"
KINDS = {
    "ray::ClientAppActor": CLIENT,
    "pluralllm_app.engines.simulated": "server and simulation",
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
    cpu: dict[str, float]  # seconds of all processes of each kind
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
    peaks: dict[str, int] = defaultdict(int)
    spent: dict[int, tuple[str, float]] = {}  # kind and seconds of CPU, by process
    next_look = start
    while process.poll() is None:
        if not start_up and read_json(out / "run.json").get("roster"):
            start_up = time.perf_counter() - start
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                if other.pid != process.pid and not other.cwd().startswith(place):
                    continue
                line, times = " ".join(other.cmdline()), other.cpu_times()
                # A process that begins or ends has no line of its own.
                before, _ = spent.get(other.pid, ("others", 0.0))
                kind = next((KINDS[mark] for mark in KINDS if mark in line), before)
                spent[other.pid] = kind, times.user + times.system
                if kind != "others" and time.perf_counter() >= next_look:
                    peaks[kind] = max(peaks[kind], other.memory_full_info().uss)
        if time.perf_counter() >= next_look:
            next_look = time.perf_counter() + 3
        time.sleep(0.2)
    duration = time.perf_counter() - start
    cpu: dict[str, float] = defaultdict(float)
    for kind, took in spent.values():
        cpu[kind] += took
    actors = sum(kind == CLIENT for kind, _ in spent.values())
    if process.returncode or start_up is None:
        sys.exit(process.returncode or "it never said which groups it has")
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    record, weights = read_json(out / "run.json"), hash_of_weights(out)
    return Watched(duration, start_up, record, rounds, actors, dict(peaks), dict(cpu), weights)


def in_one_process(config: dict[str, Scalar]) -> tuple[float, str]:
    """Seconds and SHA-256 of the weights of the same run without Ray, one group after another."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    groups = len(PreparedSurvey.open(Path(str(config["survey"]))).groups)
    with tempfile.TemporaryDirectory() as directory:
        config = config | {"out": str(Path(directory, "run"))}
        grid = InProcessGrid(client_app.app, config, groups)
        duration = seconds(lambda: run_federation(grid, Settings.from_config(config), config))
        return duration, hash_of_weights(Path(directory, "run"))


def hash_of_weights(run: Path) -> str:
    """SHA-256 of a run's last weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A whole run, measured. All else that is given goes to `pluralllm run`."
    )
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument(
        "--check", action="store_true", help="compare with the same run in one process"
    )
    arguments, rest = parser.parse_known_args()
    run = watch(rest)
    results: Results = {
        "s from command to end": run.seconds,
        "s of it before the groups are known": run.start_up,
        "s of it in rounds": sum(entry["seconds"] for entry in run.rounds),
        "client processes": run.actors,
    }
    plain = [entry for entry in run.rounds if not entry["evaluation"]]
    if plain:
        whole = fmean(entry["seconds"] for entry in plain)
        steps = fmean(
            sum(own["seconds"] for own in entry["train"]["groups"].values()) for entry in plain
        )
        results |= {
            "s a round without evaluation": whole,
            "s of it beside local steps": whole - steps / run.actors,
        }
    for role, summary in run.rounds[-1]["evaluation"]["roles"].items():
        if summary:
            results[f"alignment of the {role} groups"] = summary["mean"]
    results["s of CPU"] = sum(run.cpu.values())
    results |= {f"s of CPU, {kind}": spent for kind, spent in sorted(run.cpu.items())}
    results |= {
        f"peak MiB of the largest, {kind}": peak / 2**20 for kind, peak in sorted(run.peaks.items())
    }
    results["sha256 of model.safetensors"] = run.weights
    if arguments.check:
        duration, weights = in_one_process(run.record["settings"])
        results |= {"s in one process": duration, "sha256 in one process": weights}
    publish("whole run", results, arguments.json)


if __name__ == "__main__":
    main()
