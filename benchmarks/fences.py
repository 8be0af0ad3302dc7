"""What a round of a deployment costs with and without what guards it, in turn in one run.

    python benchmarks/fences.py

SuperLink and SuperNodes are real processes, as in `benchmarks/deployment.py`. Of two rounds one has
all guards and one has none: the fence in front of the SuperLink (connections, signatures, bodies,
whose replies), and the nodes' audit log and ledger. Comparing the code is part of a run's first
message and not of a round; it is timed alone.

Rounds differ by more than guards cost, since nodes look for messages at intervals. So the seconds
that pass inside guards are added up as well, of all nodes in a round: they bound what guards add.
"""

import math
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, stdev

from deployment import federation, read_rounds
from measuring import parse, publish
from rich.console import Console

from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.deployment import Deployment

GUARDS = {  # in a file of the app: what is done where guards are off; None: what is done always
    "deploy/connections.py": {"Connections._set_deadline": "None"},
    "federation/audit_log.py": {"AuditLog.write": "None"},
    "federation/flower_fence.py": {"check_reply": "None", "has_signed": None},
    "federation/ledger.py": {"admit": "Policy()"},
    "federation/own_code.py": {"refusal": None},
}
OPEN = {  # what passes requests on where guards are off
    "deploy/admission.py": "Admission.__call__",
    "deploy/superlink.py": "LocalControl.__call__",
}
SWITCH = """

import os as _os
import time as _time
from pathlib import Path as _Path

_OFF = _Path({off!r})


def _timed(name, guard, instead=None):
    def call(*arguments, **named):
        if instead and _OFF.exists():
            return instead()
        began, computed = _time.perf_counter(), _time.thread_time()
        try:
            return guard(*arguments, **named)
        finally:
            took, computed = _time.perf_counter() - began, _time.thread_time() - computed
            line = f"{{_time.time()}} {{name}} {{took}} {{computed}}\\n"
            opened = _os.open({log!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT)
            _os.write(opened, line.encode())
            _os.close(opened)

    return call


def _passed(guard):
    async def call(self, scope, receive, send):
        if _OFF.exists():
            await self.app(scope, receive, send)
        else:
            await guard(self, scope, receive, send)

    return call


"""


def put_off_by_a_file(deployment: Deployment) -> None:
    """Let a file `off` put guards off, and a file `seconds` say how long they took.

    This edits the app of a deployment before it starts.
    """
    app = deployment.path / "app" / "pluralllm_app"
    switch = SWITCH.format(off=str(deployment.path / "off"), log=str(deployment.path / "seconds"))
    for file, guards in GUARDS.items():
        lines = [
            f"{name} = _timed({name!r}, {name}, {instead and f'lambda: {instead}'})\n"
            for name, instead in guards.items()
        ]
        add(app / file, switch + "".join(lines))
    for file, name in OPEN.items():
        add(app / file, f"{switch}{name} = _passed({name})\n")


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


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--nodes", type=int, default=3),
            parser.add_argument("--rounds", type=int, default=60),
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
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        run, ended = path / "run", []
        with federation(path / "there", survey, groups, put_off_by_a_file) as (deployment, _):
            off, log = deployment.path / "off", deployment.path / "seconds"
            submitted = deployment.submit(config | {"out": str(run)})
            for number in range(arguments.rounds + 1):
                off.unlink(missing_ok=True) if has_guards(number) else off.touch()
                while lines_of(run / "rounds.jsonl") <= number and submitted.poll() is None:
                    time.sleep(0.02)
                ended.append(time.time())
            if submitted.wait() or len(read_rounds(run)) <= arguments.rounds:
                sys.exit(deployment.log("run"))
            timed = [line.split() for line in log.read_text().splitlines()]
    # The first rounds and the last one do more than others.
    first, last = 2, arguments.rounds // 2 * 2
    took = {number: ended[number] - ended[number - 1] for number in range(first, last)}
    guarded, open_ = (
        [took[number] for number in took if has_guards(number) is own] for own in (True, False)
    )
    logs = [math.log(ours / without) for ours, without in zip(guarded, open_, strict=True)]
    within: dict[str, float] = defaultdict(float)
    computed = 0.0
    for at, guard, passed, of_cpu in timed:
        if ended[first - 1] < float(at) <= ended[last - 1]:
            within[guard] += 1000 * float(passed) / len(guarded)
            computed += 1000 * float(of_cpu) / len(guarded)
    publish(
        "fences",
        {
            "nodes": len(groups),
            "pairs of rounds": len(logs),
            "s a round, with": median(guarded),
            "s a round, without": median(open_),
            "with / without, mean of pairs": math.exp(fmean(logs)),
            "half of its interval of 95 %": 1.96 * stdev(logs) / math.sqrt(len(logs)),
            **{f"ms a round in {guard}, all nodes": took for guard, took in within.items()},
            "ms of CPU a round in all of them, all nodes": computed,
            "% of a round in all of them, all nodes": sum(within.values()) / (10 * fmean(guarded)),
            "ms to compare the code, once a run and node": 1000
            * fmean(float(took) for _, guard, took, _ in timed if guard == "refusal"),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
