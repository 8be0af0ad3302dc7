"""What a round of a deployment costs with and without what guards it, in turn in one run.

    python benchmarks/fences.py
    python benchmarks/fences.py --only ledger

SuperLink and SuperNodes are real processes, as in `benchmarks/deployment.py`. Of two rounds one has
all guards and one has none: the fence in front of the SuperLink (connections, signatures, bodies,
whose replies), its guard of objects, and the nodes' audit log and ledger. Comparing the code is
part of a run's first message and not of a round; it is timed alone.

Rounds differ by more than guards cost, since nodes look for messages at intervals. So the CPU time
of all processes is compared as well, and the seconds that pass inside what is done once for a
message are added up, of all nodes: most of them are waiting for the disk, which the nodes of a real
deployment do not share with one another and the SuperLink. TMPDIR=/dev/shm leaves the disk out.
"""

import math
import mmap
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

import psutil
from deployment import FORKED, federation, kind_of, read_rounds
from measuring import parse, publish
from rich.console import Console

from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.deployment import Deployment

# What a guard does when it is off, by its file in the app and its name; None: it is never off.
ONCE = {  # for a message, a connection or a run
    "federation/audit_log.py": {"AuditLog.write": "lambda *call: None"},
    "federation/flower_fence.py": {"check_reply": "lambda *call: None", "has_signed": None},
    "federation/ledger.py": {"admit": "lambda *call, **named: Policy()"},
    "federation/own_code.py": {"refusal": None},
}
OFTEN = {  # for a request or an object
    "deploy/admission.py": {"Admission.__call__": "lambda self, *call: self.app(*call)"},
    "deploy/connections.py": {"Connections._set_deadline": "lambda *call: None"},
    "deploy/superlink.py": {"LocalControl.__call__": "lambda self, *call: self.app(*call)"},
    "federation/flower_store.py": {
        "SqlObjectStore.preregister": "_preregister",
        "SqlObjectStore.put": "_put",
        "runtime_handlers.pull_messages": "_pull",
    },
}
STORE = """
_guard_objects = guard_objects
_preregister, _put = SqlObjectStore.preregister, SqlObjectStore.put
_pull = runtime_handlers.pull_messages


def guard_objects():
    _guard_objects()
"""
SWITCH = """

import mmap as _mmap
import os as _os
import time as _time

with open({off!r}, "rb") as _file:
    _off = _mmap.mmap(_file.fileno(), 1, access=_mmap.ACCESS_READ)


def _switched(guard, instead):
    return lambda *call, **named: (instead if _off[0] else guard)(*call, **named)


def _timed(name, guard):
    def call(*arguments, **named):
        began = _time.perf_counter()
        try:
            return guard(*arguments, **named)
        finally:
            line = f"{{_time.time()}} {{name}} {{_time.perf_counter() - began}}\\n"
            opened = _os.open({log!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT)
            _os.write(opened, line.encode())
            _os.close(opened)

    return call

"""


class Passed(NamedTuple):
    """What a guard took once."""

    at: float  # when it ended, in seconds since 1970
    guard: str
    seconds: float


class Switch:
    """Puts the guards of a deployment off and on. They look at a byte that processes share.

    Args:
        only: name of the file whose guards alone are put off; without, all are.
    """

    def __init__(self, only: str | None) -> None:
        self._only = only

    def install(self, deployment: Deployment) -> None:
        """Edit the app of a deployment that has not started yet."""
        self._log, off = deployment.path / "seconds", deployment.path / "off"
        off.write_bytes(bytes(1))
        with off.open("r+b") as file:
            self._off = mmap.mmap(file.fileno(), 1)
        switch = SWITCH.format(off=str(off), log=str(self._log))
        app = deployment.path / "app" / "pluralllm_app"
        for file_name, guards in ONCE.items():
            add(
                app / file_name,
                switch + "".join(self._lines(file_name, guards, "_timed({0!r}, {0})")),
            )
        for file_name, guards in OFTEN.items():
            lines = self._lines(file_name, guards, "{0}")
            if file_name.endswith("flower_store.py"):  # whose guards come when it is asked to
                lines = [STORE, *(f"    {line}" for line in lines)]
            add(app / file_name, switch + "".join(lines))

    def _lines(self, file_name: str, guards: dict[str, str | None], guard: str) -> list[str]:
        found = []
        for name, instead in guards.items():
            own = guard.format(name)
            if instead and self._only in (None, Path(file_name).stem):
                own = f"_switched({own}, {instead})"
            found.append(f"{name} = {own}\n")
        return found

    def put(self, on: bool) -> None:
        """Put the guards on or off."""
        self._off[0] = not on

    def passed(self) -> list[Passed]:
        """What guards took that are timed."""
        lines = map(str.split, self._log.read_text().splitlines())
        return [Passed(float(at), guard, float(took)) for at, guard, took in lines]


def add(file: Path, text: str) -> None:
    """Put text behind all but what starts a module as a program."""
    before, main, after = file.read_text("utf-8").partition('\n\nif __name__ == "__main__":')
    file.write_text(before + text + main + after, "utf-8")


def has_guards(number: int) -> bool:
    """Whether a round has guards: of two, the first and the second in turn."""
    return (number // 2 + number) % 2 == 0


def lines_of(file: Path) -> int:
    """How many lines a file has that may not be there yet."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """CPU time of processes so far, and of their children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


class Pairs:
    """What rounds cost in pairs, with guards and without, by how much there was at their ends.

    The first rounds do more than others, and are left out.
    """

    def __init__(self, ends: list[float]) -> None:
        costs = {number: ends[number] - ends[number - 1] for number in counted(ends)}
        self.guarded, self.open = (
            [costs[number] for number in costs if has_guards(number) is own]
            for own in (True, False)
        )

    def results(self, what: str) -> dict[str, float]:
        """What to publish of them."""
        pairs = zip(self.guarded, self.open, strict=True)
        logs = [math.log(ours / without) for ours, without in pairs]
        return {
            f"{what} a round, with": median(self.guarded),
            f"{what} a round, without": median(self.open),
            f"{what}: with / without, mean of pairs": math.exp(fmean(logs)),
            f"{what}: half of its interval of 95 %": 1.96 * stdev(logs) / math.sqrt(len(logs)),
        }


def counted(ends: list[float]) -> range:
    """The rounds that count, of which these are the ends."""
    return range(2, len(ends) // 2 * 2)


def main() -> None:
    stems = sorted({Path(file).stem for file in (*ONCE, *OFTEN)} - {"own_code"})
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--nodes", type=int, default=3),
            parser.add_argument("--rounds", type=int, default=60),
            parser.add_argument("--only", choices=stems, help="put the guards of one file off"),
        ),
    )
    config = read_run_config(demo_survey(Console()), None, [], None)
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
    switch = Switch(arguments.only)
    ended: list[float] = []
    cpu: dict[str, list[float]] = {"SuperLink": [], "others": []}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        run = path / "run"
        with federation(path / "there", survey, groups, switch.install) as (deployment, _):
            submitted = deployment.submit(config | {"out": str(run)})
            lasting: dict[bool, list[psutil.Process]] = {True: [], False: []}
            for number in range(arguments.rounds):  # the last one evaluates as well
                switch.put(has_guards(number))
                while lines_of(run / "rounds.jsonl") <= number and submitted.poll() is None:
                    time.sleep(0.02)
                ended.append(time.time())
                if number == 1:  # by now there are all that last longer than a message
                    for process in deployment.processes():
                        if (kind := kind_of(process)) != FORKED:
                            lasting[kind == "SuperLink"].append(process)
                for kind, spent in cpu.items():
                    spent.append(cpu_seconds(lasting[kind == "SuperLink"]))
            if submitted.wait() or len(read_rounds(run)) <= arguments.rounds:
                sys.exit(deployment.log("run"))
            passed = switch.passed()
    rounds = Pairs(ended)
    within: dict[str, float] = defaultdict(float)
    for each in passed:
        if ended[1] < each.at <= ended[counted(ended)[-1]]:
            within[each.guard] += 1000 * each.seconds / len(rounds.guarded)
    publish(
        "fences",
        {
            "nodes": len(groups),
            "pairs of rounds": len(rounds.guarded),
            **rounds.results("s"),
            **Pairs(cpu["SuperLink"]).results("s of CPU of the SuperLink"),
            **Pairs(cpu["others"]).results("s of CPU of all others"),
            **{f"ms a round in {guard}, all nodes": took for guard, took in within.items()},
            "% of a round in all of them, all nodes": sum(within.values())
            / (10 * fmean(rounds.guarded)),
            "ms to compare the code, once a run and node": 1000
            * fmean(each.seconds for each in passed if each.guard == "refusal"),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
