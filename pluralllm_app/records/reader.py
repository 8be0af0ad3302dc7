"""Runs and comparisons read back, finished or not."""

from pathlib import Path

from pluralllm_app.errors import UserError
from pluralllm_app.records.schema import (
    ComparisonInfo,
    Content,
    FewShot,
    RoundEntry,
    RunInfo,
    decode,
)

RUN = "run.json"
ROUNDS = "rounds.jsonl"
FEW_SHOT = "few-shot.json"
COMPARISON = "comparison.json"


def read_run(path: Path) -> RunInfo | None:
    """What run.json of the run directory `path` says; None where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    return _read(RunInfo, path / RUN)


def read_few_shot(path: Path) -> FewShot | None:
    """What few-shot.json of the run directory `path` says; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    return _read(FewShot, path / FEW_SHOT)


def read_comparison(path: Path) -> ComparisonInfo | None:
    """What comparison.json of the directory `path` says; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    return _read(ComparisonInfo, path / COMPARISON)


def _read(kind: type[Content], file: Path) -> Content | None:
    try:
        return decode(kind, file.read_bytes(), file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


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
        try:
            with self._file.open("rb") as opened:
                opened.seek(self._position)
                *lines, self.rest = opened.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self._file}: {error.strerror}") from error
        first = self._lines + 1
        self._position += sum(len(line) + 1 for line in lines)
        self._lines += len(lines)
        return [
            decode(RoundEntry, line, self._file, number)
            for number, line in enumerate(lines, start=first)
        ]


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
