"""A federation of real processes on this machine: seconds and bytes a round, memory and disk.

    python benchmarks/deployment.py
    python benchmarks/deployment.py --config conf/paper.toml
    python benchmarks/deployment.py --survey data/globalopinionqa --config conf/paper.toml
    python benchmarks/deployment.py --config conf/factors.toml

SuperLink with TLS and SuperNodes with keys, as `pluralllm deploy` sets them up, with one group
each, whose owners let factors be learned in the clear. A node reaches the SuperLink through a
forwarder that counts what passes, with all of TLS and HTTP. Of the same rounds in one process
nothing is left but training and aggregating.

A second run, on the same nodes, exchanges messages as Flower's own strategies do: it evaluates in
an exchange of its own and looks for replies every 3 seconds.

Memory is the unique set size (what ending a process would free), the largest process of a kind.
"""

import hashlib
import inspect
import json
import logging
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from measuring import ROOT, parse, publish
from rich.console import Console
from safetensors.numpy import load

from pluralllm_app import client_app
from pluralllm_app.deploy.layout import QUESTIONNAIRE
from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

sys.path.insert(0, str(ROOT))
from tests.support.deployment import Deployment
from tests.support.forwarder import Forwarder

# What marks the command line of a kind of process, the first that fits.
FORKED, FORKS = "ClientApp, for a message", "process that it is forked from"
KINDS = {
    "flwr-serverapp": "ServerApp",
    "multiprocessing.forkserver": FORKS,
    "pluralllm_app.deploy.superlink": "SuperLink",
    "pluralllm_app.deploy.supernode": "SuperNode",
}

WARM_UP = 3  # lines of rounds.jsonl


def stock_exchange(grid, messages, timeout):  # type: ignore[no-untyped-def]
    """What replaces `exchange` of the app in the run in Flower's own way."""
    answers = grid.send_and_receive(messages, timeout=timeout)
    replies = {reply.metadata.reply_to_message_id: reply for reply in answers}
    for message in messages:
        own = message.metadata
        yield own.dst_node_id, replies.get(own.message_id, f"no reply within {timeout:g} s")


def kind_of(process: psutil.Process) -> str:
    """What a process of the deployment is."""
    command = process.cmdline()
    line = " ".join(command)
    kind = next((kind for mark, kind in KINDS.items() if mark in line), "others")
    parent = process.parent()
    return FORKED if parent and kind == FORKS and parent.cmdline() == command else kind


@contextmanager
def federation(
    path: Path,
    survey: PreparedSurvey,
    groups: list[str],
    prepare: Callable[[Deployment], object] = lambda deployment: None,
) -> Iterator[tuple[Deployment, list[Forwarder]]]:
    """SuperLink and the nodes of `groups`, online, each with its forwarder.

    `prepare` is called with the deployment before anything of it is started.
    """
    with Deployment(path, survey, groups) as deployment:
        prepare(deployment)
        deployment.start_superlink()
        deployment.register()
        forwarders = []
        for group in groups:
            forwarders.append(Forwarder(deployment.port))
            deployment.forward(group, forwarders[-1].port)
            deployment.start_node(group)
        deployment.wait_online(len(groups))
        yield deployment, forwarders


def let_sums_in_the_clear(deployment: Deployment) -> None:
    """Let nodes learn factors without secure sums, which they refuse by default."""
    for group in deployment.groups:
        (deployment.node_dir(group) / POLICY).write_text('secure-sum = "none"\n', "utf-8")


def use_stock_exchange(deployment: Deployment) -> None:
    """Let runs submitted from now on exchange messages in Flower's own way."""
    module = deployment.path / "app" / "pluralllm_app" / "federation" / "exchange.py"
    stock = inspect.getsource(stock_exchange).replace("stock_exchange", "exchange")
    module.write_text(f"{module.read_text('utf-8')}\n\n{stock}", "utf-8")


def size(files: Iterable[Path]) -> int:
    """Bytes of files."""
    return sum(file.stat().st_size for file in files if file.is_file())


def read_rounds(run: Path) -> list[dict[str, Any]]:
    """Entries of rounds.jsonl so far."""
    file = run / "rounds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def exchanges(rounds: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Median seconds of an exchange that trains, and of one that also evaluates the weights it
    sends; seconds of the last one, which evaluates only. Those of the first rounds do not count.
    """
    scoring = [
        entry["seconds"] - (entry["train"]["seconds"] if entry["train"] else 0) for entry in rounds
    ]
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for before, after, seconds in list(zip(rounds, rounds[1:], scoring, strict=False))[WARM_UP:]:
        by_kind[before["evaluation"] is not None].append(after["train"]["seconds"] + seconds)
    return median(by_kind[False]), median(by_kind[True] or [math.nan]), scoring[-1]


def follow(
    deployment: Deployment, forwarders: list[Forwarder], config: dict[str, Scalar], run: Path
) -> tuple[list[int], dict[str, int]]:
    """Submit a run and wait for its end.

    Returns:
        The bytes of all nodes so far at each line of rounds.jsonl, and the peak memory in bytes by
        kind of process.
    """
    submitted = deployment.submit(config | {"out": str(run)}, run.name)
    passed: list[int] = []
    peaks: dict[str, int] = defaultdict(int)
    while submitted.poll() is None:
        lines = len(read_rounds(run))
        passed += [sum(own.bytes for own in forwarders)] * (lines - len(passed))
        # Reading the memory slows a process down: in the first rounds only, whose seconds and
        # bytes do not count.
        for process in deployment.processes() if lines < WARM_UP else []:
            with suppress(psutil.Error):
                kind = kind_of(process)
                peaks[kind] = max(peaks[kind], process.memory_full_info().uss)
        time.sleep(0.1)
    if len(read_rounds(run)) <= int(config["rounds"]):
        sys.exit(deployment.log(run.name))
    if unseen := {*KINDS.values(), FORKED} - set(peaks):
        sys.exit(f"no process was seen of {', '.join(sorted(unseen))}: mend KINDS")
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
        "evaluate-every": 2,
        "train-groups-per-round": 0,
        "min-train-groups": len(groups),
        "expected-nodes": len(groups),
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        ours, stock, local = (path / name for name in ("run", "stock", "local"))
        there = federation(path / "there", survey, groups, let_sums_in_the_clear)
        with there as (deployment, forwarders):
            config["questionnaire"] = str(deployment.dir / QUESTIONNAIRE)
            passed, peaks = follow(deployment, forwarders, config, ours)
            database = size(deployment.dir.glob("server/state/superlink.db*"))
            use_stock_exchange(deployment)
            follow(deployment, forwarders, config | {"evaluate-every": arguments.rounds}, stock)
            logging.getLogger("flwr").setLevel(logging.WARNING)
            grid = InProcessGrid(client_app.app, config, len(groups))
            for context, group in zip(grid.contexts.values(), groups, strict=True):
                node = deployment.node_dir(group)
                context.node_config = {"site": str(node / "site"), "node": str(node)}
            alone = config | {"out": str(local)}
            run_federation(grid, Settings.from_config(alone), alone)
        weights = [(run / "model/model.safetensors").read_bytes() for run in (ours, local)]
        rounds, stock_rounds, local_rounds = map(read_rounds, (ours, stock, local))
        disk = size(ours.rglob("*"))
    plain, evaluating, last = exchanges(rounds)
    stock_plain, _, stock_last = exchanges(stock_rounds)
    local_plain, *_ = exchanges(local_rounds)
    between = [after - before for before, after in pairwise(passed)][WARM_UP:-1]
    publish(
        "deployment",
        {
            "nodes": len(groups),
            "rounds": arguments.rounds,
            "parameters": sum(map(np.size, load(weights[0]).values())),
            "s a round": plain,
            "s a round that also evaluates": evaluating,
            "s of an evaluation in an exchange of its own": last,
            "s a round, in Flower's own way": stock_plain,
            "s of an evaluation, in Flower's own way": stock_last,
            "Flower's own way / ours, trained and evaluated": (stock_plain + stock_last)
            / evaluating,
            "s a round, in one process": local_plain,
            "weights, MB": len(weights[0]) / 1e6,
            "MB a round and node, both directions": median(between) / len(groups) / 1e6,
            "same weights as in one process": weights[0] == weights[1],
            "SHA-256 of the weights": hashlib.sha256(weights[0]).hexdigest()[:12],
            **{f"MiB, {kind}": round(peak / 2**20) for kind, peak in sorted(peaks.items())},
            "MB of the SuperLink's database after the run": database / 1e6,
            "MB of the run directory": disk / 1e6,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
