"""One process at a time writes a run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pluralllm_app.core.locks import held
from pluralllm_app.errors import FederationError


@contextmanager
def locked_run(path: Path) -> Iterator[None]:
    """Keep other processes from writing the run directory `path` for the block; makes it.

    Raises:
        UserError: another process is writing it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        busy = f"another process writes the run in {path}: wait for it, or end it"
        lock = held(path / ".lock", busy)
    except OSError as error:
        raise FederationError(f"cannot write the run directory {path}: {error}") from error
    with lock:
        yield
