"""JSON that somebody else may have written."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 2**26  # of a file: in memory, JSON can become twenty times as large


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, is nested too deeply, or is longer than `MOST_BYTES`.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_json(file: Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read.
        ValueError: see `parse_json`.
    """
    with file.open("rb") as stream:
        return parse_json(stream.read(MOST_BYTES + 1))
