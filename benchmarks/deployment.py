"""A federation of real processes on this machine: seconds and bytes a round, and memory.

    python benchmarks/deployment.py
    python benchmarks/deployment.py --survey data/globalopinionqa --config conf/paper.toml

SuperLink with TLS and SuperNodes with keys, as `pluralllm deploy init` sets them up, with one group
each. A node reaches the SuperLink through a forwarder that counts what passes, with all of TLS and
HTTP. Of the same rounds in one process nothing is left but training and aggregating.

Memory is the unique set size (what ending a process would free), the largest process of a kind.
"""

import json
import logging
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from measuring import ROOT, parse, publish
from rich.console import Console

from pluralllm_app import client_app
from pluralllm_app.federation.in_process import InProcessGrid
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.run import demo_survey, read_run_config
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

sys.path.insert(0, str(ROOT))
from tests.support.deployment import Deployment

# What marks the command line of a kind of process, the first that fits.
KINDS = {
    "flwr-serverapp": "ServerApp",
    "flwr-clientapp": "ClientApp, for a message",
    "pluralllm_app.deploy.superlink": "SuperLink",
    "flower-supernode": "SuperNode",
}


WARM_UP = 3  # lines of rounds.jsonl


class Forwarder:
    """A port of its own that forwards to another of this machine, and counts the bytes."""

    def __init__(self, target: int) -> None:
        self.bytes = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            theirs, _ = self._listener.accept()
            ours = socket.create_connection(("127.0.0.1", self._target))
            for ends in ((theirs, ours), (ours, theirs)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either end was closed
            while content := source.recv(2**16):
                self.bytes += len(content)
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def federation(
    path: Path, survey: PreparedSurvey, groups: list[str]
) -> Iterator[tuple[Deployment, list[Forwarder]]]:
    """SuperLink and the nodes of `groups`, online, each with its forwarder."""
    with Deployment(path, survey, groups) as deployment:
        deployment.start_superlink()
        deployment.register()
        forwarders = []
        for group in groups:
            forwarders.append(Forwarder(deployment.port))
            script = deployment.node_dir(group) / "start.sh"
            direct, counted = (
                f"--superlink 127.0.0.1:{port} " for port in (deployment.port, forwarders[-1].port)
            )
            text = script.read_text()
            assert direct in text
            script.write_text(text.replace(direct, counted))
            deployment.start_node(group)
        deployment.wait_online(len(groups))
        yield deployment, forwarders


def read_rounds(run: Path) -> list[dict[str, Any]]:
    """Entries of rounds.jsonl so far."""
    file = run / "rounds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def follow(
    deployment: Deployment, forwarders: list[Forwarder], config: dict[str, Scalar], run: Path
) -> tuple[list[int], dict[str, int]]:
    """Submit a run and wait for its end.

    Returns:
        The bytes of all nodes so far at each line of rounds.jsonl, and the peak memory in bytes by
        kind of process.
    """
    submitted = deployment.submit(config | {"out": str(run)})
    passed: list[int] = []
    peaks: dict[str, int] = defaultdict(int)
    while submitted.poll() is None:
        lines = len(read_rounds(run))
        passed += [sum(own.bytes for own in forwarders)] * (lines - len(passed))
        # Reading the memory slows a process down: in the first rounds only, whose seconds and
        # bytes do not count.
        for process in deployment.processes() if lines < WARM_UP else []:
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                kind = next((kind for mark, kind in KINDS.items() if mark in line), "others")
                peaks[kind] = max(peaks[kind], process.memory_full_info().uss)
        time.sleep(0.5)
    return passed, peaks


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, help="prepared survey; without: the demo"),
            parser.add_argument("--config", type=Path, help="settings, a .toml file"),
            parser.add_argument("--nodes", type=int, default=3),
            parser.add_argument("--rounds", type=int, default=8),
        ),
    )
    config = read_run_config(arguments.survey or demo_survey(Console()), arguments.config, [], None)
    survey = PreparedSurvey.open(str(config.pop("survey")))
    groups = [group.name for group in survey.groups if group.role == "train"][: arguments.nodes]
    config |= {
        "survey": "",
        "rounds": arguments.rounds,
        "evaluate-every": arguments.rounds,
        "train-groups-per-round": 0,
        "min-train-groups": len(groups),
        "expected-nodes": len(groups),
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        with federation(path / "there", survey, groups) as (deployment, forwarders):
            passed, peaks = follow(deployment, forwarders, config, path / "run")
            rounds = read_rounds(path / "run")
            if len(rounds) <= arguments.rounds:
                sys.exit(deployment.log("run"))
            logging.getLogger("flwr").setLevel(logging.WARNING)
            grid = InProcessGrid(client_app.app, config, len(groups))
            for context, group in zip(grid.contexts.values(), groups, strict=True):
                context.node_config = {"site": str(deployment.node_dir(group) / "site")}
            local = config | {"out": str(path / "local")}
            run_federation(grid, Settings.from_config(local), local)
        same, weights = (
            [(path / run / "model" / "model.safetensors").read_bytes() for run in ("run", "local")],
            (path / "run" / "model" / "model.safetensors").stat().st_size,
        )
        alone = [entry["train"]["seconds"] for entry in read_rounds(path / "local")[1:]]
    # The last exchange scores only.
    trained = [entry["train"]["seconds"] for entry in rounds[WARM_UP + 1 :]]
    between = [after - before for before, after in pairwise(passed)][WARM_UP:-1]
    publish(
        "deployment",
        {
            "nodes": len(groups),
            "rounds": arguments.rounds,
            "s a round, without evaluation": median(trained),
            "s of the same in one process": median(alone),
            "s of an evaluation in an exchange of its own": rounds[-1]["seconds"] - trained[-1],
            "weights, bytes": weights,
            "bytes a round and node, both directions": median(between) / len(groups),
            "same weights as in one process": same[0] == same[1],
            **{f"MiB, {kind}": round(peak / 2**20) for kind, peak in sorted(peaks.items())},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
