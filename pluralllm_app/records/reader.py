"""Run directories read back, finished or not."""

from pathlib import Path

from pluralllm_app.errors import UserError
from pluralllm_app.records.schema import RoundEntry, RunInfo, decode

RUN = "run.json"
ROUNDS = "rounds.jsonl"


def read_run(path: Path) -> RunInfo | None:
    """What run.json of the run directory `path` says; None where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    file = path / RUN
    if not file.exists():
        return None
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    return decode(RunInfo, text, file)


class RoundReader:
    """Reads the lines of a run's rounds.jsonl, also while another process appends to it."""

    def __init__(self, path: Path) -> None:
        self._file = path / ROUNDS
        self._position = 0
        self._lines = 0
        self.rest = b""  # of a line that is being written

    def read(self) -> list[RoundEntry]:
        """The rounds whose lines were finished since the last call.

        Raises:
            UserError: a line is damaged, or the file cannot be read.
        """
        if not self._file.exists():
            return []
        try:
            with self._file.open("rb") as opened:
                opened.seek(self._position)
                *lines, self.rest = opened.read().split(b"\n")
        except OSError as error:
            raise UserError(f"cannot read {self._file}: {error.strerror}") from error
        self._position += sum(len(line) + 1 for line in lines)
        entries = []
        for line in lines:
            self._lines += 1
            entries.append(decode(RoundEntry, line, self._file, self._lines))
        return entries


def read_rounds(path: Path, *, complete: bool) -> list[RoundEntry]:
    """All rounds of the run directory `path`.

    Args:
        path: the run directory.
        complete: whether the run has ended well, so that no line may be cut off.

    Raises:
        UserError: rounds.jsonl is damaged.
    """
    reader = RoundReader(path)
    rounds = reader.read()
    if reader.rest and complete:
        raise UserError(
            f"{path / ROUNDS} is damaged: its last line is cut off: restore it from a copy, or do "
            f"without {path}"
        )
    return rounds
