"""One line of a .jsonl file."""

import json
from textwrap import shorten
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


def json_object(line: str, number: int) -> dict[str, Any]:
    """Return the object in a line, {} if the line is blank.

    Raises:
        ValueError: it is no object, names a key twice, or has half a character.
    """
    line = line.strip("\ufeff\r\n\t ")
    if not line:
        return {}
    try:
        row = _decode(line)  # several times as fast as Python's own, but without NaN
    except (msgspec.DecodeError, RecursionError):
        row = _value(line, number)
    if not isinstance(row, dict):
        raise ValueError(
            f"data row {number}, line {number} is no JSON object, but each line must be one: "
            + shorten(repr(line[:200]), 80)
        )
    if line.count('":') != len(
        row
    ):  # more where a text or a list has it, too, or a key is there twice
        _refuse_repeated_keys(line, number)
    return row


def _value(line: str, number: int) -> Any:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"data row {number}, line {number} has half a character: a surrogate escape without "
            "its other half"
        ) from error
    except (ValueError, RecursionError):
        return None
    return value


def _refuse_repeated_keys(line: str, number: int) -> None:
    def refuse(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len({*keys}) < len(keys):
            again = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"data row {number}, line {number} has {again!r} twice: remove one")

    json.loads(line, object_pairs_hook=refuse)
