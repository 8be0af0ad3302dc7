"""The finished rows of a long embedding on disk, so that an interrupted one can continue.

They are kept in a directory of files like 000000001234.safetensors, each named by the number of its
first row. A file holds `rows`, float16 [n, dim], in the order in which they were computed, and the
digest of what they were computed from.
"""

import shutil
import time
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.segments import Halves
from pluralllm_app.errors import SurveyError

SECONDS = 30.0  # of work that an interruption loses at most


class UnfinishedRows:
    """The rows computed so far with one model, from one list of prompts in one plan of batches.

    The directory is made with its first file, so an embedding of a few seconds never has one.
    """

    def __init__(self, directory: Path, digest: str) -> None:
        """`digest` differs between embeddings whose rows must not be mixed."""
        self._directory = directory
        self._digest = digest
        self._kept = 0
        self._last = time.monotonic()

    def resume(self, rows: Halves) -> int:
        """Read the kept rows into the first ones of `rows` [all, dim] and return their number.

        Raises:
            SurveyError: a file is damaged or has another digest.
        """
        while (file := self._file(self._kept)).exists():
            read = self._read(file)
            rows[self._kept : self._kept + len(read)] = read
            self._kept += len(read)
        return self._kept

    def keep(self, rows: Halves) -> None:
        """Write those of `rows` [done, dim] that are in no file yet, every SECONDS.

        Raises:
            SurveyError: the directory cannot be written.
        """
        if time.monotonic() - self._last < SECONDS:
            return
        file = self._file(self._kept)
        content = save({"rows": rows[self._kept :]}, {"digest": self._digest})
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
        except OSError as error:
            raise SurveyError(
                f"cannot keep unfinished embeddings in {file.parent}: {error}"
            ) from error
        self._kept = len(rows)
        self._last = time.monotonic()

    def _file(self, row: int) -> Path:
        return self._directory / f"{row:012d}.safetensors"

    def _read(self, file: Path) -> Halves:
        try:
            with safe_open(file, framework="numpy") as tensors:
                digest = tensors.metadata()["digest"]
                rows: Halves = tensors.get_tensor("rows")
        except (OSError, SafetensorError) as error:
            raise SurveyError(f"{file} cannot be read ({error}): delete it to continue") from error
        if digest != self._digest:
            raise SurveyError(
                f"{file.parent} holds an unfinished embedding of another model, template or "
                "survey: finish that one first, or delete the directory"
            )
        return rows


def remove_unfinished(directory: Path) -> None:
    """Remove the directory of an embedding that is now complete, if there is one."""
    if directory.exists():
        shutil.rmtree(directory)
