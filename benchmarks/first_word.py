"""Seconds until a command says its first word, for every command and some refusals.

    python benchmarks/first_word.py
    python benchmarks/first_word.py --other /path/to/another/checkout/.venv/bin

With --other, the commands of another installation are timed in turn with ours. The best of several
tries counts: a word can come late because something else ran, but never early.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Results, parse, publish

COMMANDS = (
    "",
    "--version",
    "runn",
    "run --help",
    "run --rounds 2",
    "run -c roundz=3",
    "run -c strategy=fedavgg",
    "run --survey /none",
    "run --resume /none",
    "compare -c roundz=3",
    "centralized -c roundz=3",
    "settings rounds",
    "prepare",
    "prepare demo --out /proc/none",
    "report /none",
    "site create /none --group Alder --out /none/site",
    "questionnaire /none --out /none/there",
    "deploy --help",
    "deploy init /proc/none --server localhost --questionnaire /none",
    "deploy register /none",
    "deploy status /none",
    "deploy run /none",
)
REPEATS = 5


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--other", type=Path, help="bin of another environment"),
            parser.add_argument("--repeats", type=int, default=REPEATS),
        ),
    )
    places = {"": Path(sys.executable).parent}
    places |= {" of the other": arguments.other} if arguments.other else {}
    results: Results = {}
    for command in COMMANDS:
        times: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(arguments.repeats):
            for name, place in places.items():
                times[name].append(first_word(place, command))
        for name, found in times.items():
            results[f"s to the first word{name}: pluralllm {command}"] = min(found)
    publish("first_word", results, arguments.json)


def first_word(place: Path, command: str) -> float:
    """Seconds until the command prints anything."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as empty:  # whose own modules would be found first
        start = time.perf_counter()
        process = subprocess.Popen(
            [place / "pluralllm", *command.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=empty,
            env=environment,
        )
        assert process.stdout
        process.stdout.read(1)
        took = time.perf_counter() - start
        process.kill()
        process.communicate()
    return took


if __name__ == "__main__":
    main()
