"""The directory of a run, before the app writes its record there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from pluralllm_app.core.locks import held
from pluralllm_app.errors import UserError
from pluralllm_app.settings import Scalar

LOG = "flower.log"


def make_run_directory(
    run_config: Mapping[str, Scalar], label: str = "", runs: Path = Path("runs")
) -> Path:
    """Make the run directory that a run config names; where it names none, a new one in `runs`.

    Args:
        run_config: of the run.
        label: part of the new one's name.
        runs: where the new one is made.

    Raises:
        UserError: it holds something, or cannot be made.
    """
    given = str(run_config["out"])
    name = f"{datetime.now():%Y%m%d-%H%M%S}{label}-seed{run_config['seed']}"
    out = Path(given) if given else (runs / name).resolve()
    try:
        if not given:
            return _new_directory(out)
        if out.is_file():
            raise UserError(f"{out} is a file: give another --out")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty{_what(out)}: give another --out")
    except OSError as error:
        raise UserError(
            f"cannot write the run directory {out}: {error.strerror}: make it one that "
            "can be written, or give another --out"
        ) from error
    return out


def _what(out: Path) -> str:
    """What is in a run directory, as far as it says what to do with it."""
    from pluralllm_app.records.reader import read_run
    from pluralllm_app.records.writer import STATE

    if not (out / LOG).exists():
        return ""
    run = read_run(out)
    if (out / STATE).exists() or run is None or run.status in ("completed", "running"):
        return ""
    return f", it holds a run that {run.status} before its first round: remove it"


def _new_directory(path: Path) -> Path:
    """Make a directory at `path`, or at path-2, path-3, ..., where there is none yet."""
    for number in count(1):
        new = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            new.mkdir(parents=True)
            break
    return new


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other commands from running in the directory `out` for the block.

    The app's own process locks the record, but it only starts seconds later; this locks the log.

    Raises:
        UserError: another one runs there, or it cannot be written.
    """
    try:
        lock = held(out / LOG, f"another command runs in {out}: wait for it, or end it")
    except OSError as error:
        raise UserError(f"cannot write the run directory {out}: {error.strerror}") from error
    with lock:
        yield


def reopen(out: Path, run_config: Mapping[str, Scalar]) -> None:
    """Check that the run in `out` can go on, and cut its record to what it goes on from.

    Raises:
        UserError: it cannot, see `records.resume.check_resumable`.
    """
    from pluralllm_app.federation.state import rewind
    from pluralllm_app.records.lock import locked_run
    from pluralllm_app.records.resume import check_resumable, reopen_record

    with locked_run(out):
        check_resumable(out, run_config)
        rewind(out)
        reopen_record(out)
