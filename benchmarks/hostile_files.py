"""What damaged files of answers do: mutated files of SPSS, Stata, Excel, Parquet and CSV.

    python benchmarks/hostile_files.py --files 10000

Each file is a good one of 400 people, of which bytes were changed, cut out, put in or cut off. A
draft of a map is made from it, and its people are counted by a good map, as `pluralllm
questionnaire` and `site create` do. Each has to end in shares or in an error that a user can mend:
not in a traceback nor in a library's warning, and neither after a minute nor beyond the limit of
memory. Files are read in processes that are forked and not started anew, which would take most of
the time. Good files are read first, in the same way: each has to end in shares.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata import child, files
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.sources.stated import Stated
from tests.support.people import MAP, WRITERS, people

PATIENCE = 60  # seconds for a file
MEMORY = 2**30  # bytes that reading may take, above what the interpreter and libraries do
_NUMBERS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\x10\x27\0\0")


class Forked:
    """A process that reads a file, in place of one that is started."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        """Fork, and let the child write what `microdata.child` does."""
        read, write = os.pipe()
        self._id = os.fork()
        if not self._id:
            os.close(read)
            os.dup2(write, 1)
            try:
                child.start(command[-1])
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.close(write)
        self.stdout = os.fdopen(read, "rb")

    def kill(self) -> None:
        """End it."""
        os.kill(self._id, signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        os.waitpid(self._id, 0)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Return a file with damage: half of it where headers are."""
    if draw.random() < 0.1:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        most = len(changed) if draw.random() < 0.5 else min(len(changed), 1500)
        at = draw.randrange(max(most, 1))
        kind = draw.random()
        if kind < 0.4:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind < 0.7:
            changed[at : at + 4] = draw.choice(_NUMBERS)
        elif kind < 0.85:
            del changed[at : at + draw.randrange(1, 40)]
        else:
            changed[at:at] = draw.randbytes(draw.randrange(1, 40))
    return bytes(changed)


def outcome(file: Path, map_: Path) -> str:
    """Read a file both ways, and return how the second one ended."""
    said = ""
    attempts: tuple[Callable[[], object], ...] = (
        lambda: draft_map(files.open_microdata(file, Stated()), load_profile(None), file),
        lambda: count_people(file, Stated(map=map_)),
    )
    for attempt in attempts:
        try:
            attempt()
            said = "shares"
        except SurveyError:
            said = "refused"
        except Exception as error:  # what this looks for
            return f"TRACEBACK {type(error).__name__}: {error}"[:100]
    return said


def work(first: int, last: int, seed: int, folder: Path, answer: int) -> None:
    """Read the files from `first` to `last` in this process, and write a line on each."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    warnings.simplefilter("error")
    names = [name for name in WRITERS if name not in ("german csv", "gzip")]
    for number in range(first, last):
        draw = random.Random(f"{seed} {number}")
        kind = names[number % len(names)]
        good = folder / f"good-{WRITERS[kind][0]}"
        file = folder / f"bad-{WRITERS[kind][0]}"
        whole = number < len(names)
        file.write_bytes(good.read_bytes() if whole else mutated(good.read_bytes(), draw))
        signal.alarm(PATIENCE)
        began = time.perf_counter()
        said = outcome(file, folder / "map.toml")
        signal.alarm(0)
        if whole and said != "shares":
            said = f"A GOOD FILE IS {said}"
        used = [resource.getrusage(who).ru_maxrss // 1024 for who in (0, resource.RUSAGE_CHILDREN)]
        seconds = time.perf_counter() - began
        line = f"{number}\t{kind}\t{seconds:.2f}\t{max(used)}\t{said}\n".replace("\r", " ")
        os.write(answer, line.encode())


def run(number: int, seed: int, report: Callable[[str], None]) -> int:
    """Read mutated files, and report how they ended; return how many ended badly."""
    endings: Counter[tuple[str, str]] = Counter()
    slowest, largest, first = 0.0, 0, 0
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "map.toml").write_text(MAP, "utf-8")
        for name, write in WRITERS.values():
            write(people(), folder / f"good-{name}")
        while first < number:
            read, answer = os.pipe()
            worker = os.fork()
            if not worker:
                os.close(read)
                work(first, number, seed, folder, answer)
                os._exit(0)
            os.close(answer)
            with os.fdopen(read, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    place, kind, seconds, used, said = line.rstrip("\n").split("\t", 4)
                    first = int(place) + 1
                    slowest, largest = max(slowest, float(seconds)), max(largest, int(used))
                    endings[kind, said] += 1
                    if said not in ("shares", "refused"):
                        report(line.rstrip())
            _, status = os.waitpid(worker, 0)
            if status:
                endings["?", f"DIED ({status})"] += 1
                report(f"file {first} ended the process with status {status}")
                first += 1
    finally:
        shutil.rmtree(folder)
    for (kind, said), count in sorted(endings.items()):
        report(f"{kind:<8} {count:>6,} {said}")
    report(f"slowest {slowest:.1f} s; most memory of a process {largest:,} MiB")
    return sum(count for (_, said), count in endings.items() if said not in ("shares", "refused"))


def main() -> None:
    """Read mutated files; exit status 1 if any ended badly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files.subprocess.Popen = Forked  # type: ignore[misc, assignment]
    sys.exit(run(given.files, given.seed, print) > 0)


if __name__ == "__main__":
    main()
