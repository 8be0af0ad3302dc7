"""A whole `pluralllm run`: seconds from command to final table, and peak memory by kind of process.

    python benchmarks/whole_run.py --survey data/demo
    python benchmarks/whole_run.py --survey data/globalopinionqa --config conf/paper.toml

Memory is the unique set size (what ending the process would free), sampled every 3 seconds only:
reading it slows a process down.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psutil

KINDS = {
    "ray::ClientAppActor": "client actor (largest)",
    "flwr-simulation": "server and simulation",
    "flower-superlink": "SuperLink",
}


def main() -> None:
    out = Path(tempfile.mkdtemp()) / "run"
    command = [str(Path(sys.executable).with_name("pluralllm")), "run", *sys.argv[1:]]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(out)])
    peaks: dict[str, int] = defaultdict(int)
    while process.poll() is None:
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(other.cmdline())
                for mark, kind in KINDS.items():
                    if mark in line:
                        peaks[kind] = max(peaks[kind], other.memory_full_info().uss)
        time.sleep(3)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    plain = [entry["seconds"] for entry in rounds if not entry["evaluation"]]
    print(f"{seconds:.1f} s in all, {sum(entry['seconds'] for entry in rounds):.1f} s in rounds")
    if plain:
        print(f"{sum(plain) / len(plain):.2f} s a round without evaluation")
    for kind, peak in sorted(peaks.items()):
        print(f"{peak / 2**20:7.0f} MiB  {kind}")
    weights = (out / "model" / "model.safetensors").read_bytes()
    print(f"model.safetensors sha256 {hashlib.sha256(weights).hexdigest()}")


if __name__ == "__main__":
    main()
