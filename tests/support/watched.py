"""Watches what the processes of docs/three-machines.sh open: by programs before the app's own ones.

Whoever runs one of these on a machine first notes as which user and in which network it runs, and
which files of answers of the others it can read. Then strace runs the app's own program and notes
what that and its children open.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# The machine is the one whose directory is the home. What a watched process starts is traced too.
_PROGRAM = """\
#!/bin/sh
if [ -z "${{WATCHED:-}}" ]; then
    machine=$(basename "$HOME")
    export WATCHED="{notes}/$machine.$$"
    echo "$(id -u) $(readlink /proc/self/ns/net)" > "$WATCHED.seen"
    for file in "{place}"/*/answers.csv; do
        if [ "$file" != "$HOME/answers.csv" ] && cat "$file" >/dev/null 2>&1; then echo "$file"; fi
    done >> "$WATCHED.seen"
    set -- {trace} -o "$WATCHED.trace" "{program}" "$@"
else
    set -- "{program}" "$@"
fi
exec "$@"
"""
_TRACE = "strace -f --seccomp-bpf -qq -y -z -e trace=?open,openat,?openat2,?creat"
_OPENED = re.compile(r"= \d+<(/[^>]*)>$")


@dataclass
class Seen:
    """What was noted of one machine."""

    users: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)  # of the others' files of answers
    opened: set[Path] = field(default_factory=set)


class Watch:
    """Programs that watch, in a directory to put before the PATH.

    Args:
        folder: where to put them and their notes; every user may enter it.
        place: of the machines' directories.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        self.programs, self._notes = folder / "programs", folder / "notes"
        self.programs.mkdir()
        self._notes.mkdir()
        self._notes.chmod(0o777)
        self._place = place
        for name in ("pluralllm", "python3"):
            own = Path(sys.executable).with_name(name)
            file = self.programs / name
            file.write_text(
                _PROGRAM.format(notes=self._notes, place=place, trace=_TRACE, program=own), "utf-8"
            )
            file.chmod(0o755)

    def seen(self, machine: str) -> Seen:
        """What was noted of a machine so far."""
        seen = Seen()
        for file in self._notes.glob(f"{machine}.*.seen"):
            own, *read = file.read_text("utf-8").splitlines()
            user, network = own.split()
            seen.users.add(user)
            seen.networks.add(network)
            seen.read.update(read)
        for file in self._notes.glob(f"{machine}.*.trace"):
            with file.open(encoding="utf-8", errors="replace") as lines:
                found = (_OPENED.search(line) for line in lines)
                seen.opened |= {Path(own[1]) for own in found if own}
        return seen

    def of_others(self, machine: str) -> list[Path]:
        """Files in the directories of other machines that a process of this one has opened."""
        inside = [file for file in self.seen(machine).opened if file.is_relative_to(self._place)]
        parts = {file: file.relative_to(self._place).parts for file in inside}
        return sorted(file for file, own in parts.items() if len(own) > 1 and own[0] != machine)


def can_trace() -> bool:
    """Whether there is an strace that may trace."""
    tried = [*_TRACE.split(), "-o", os.devnull, "true"]
    return shutil.which("strace") is not None and subprocess.run(tried).returncode == 0
