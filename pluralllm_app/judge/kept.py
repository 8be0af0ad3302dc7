"""A file of answers that models gave, so that nothing is asked twice.

Each line is one answer, written as soon as it came, under a hash of the model, of the way it was
asked and of the prompt. No text of a question is in it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pluralllm_app.core.json_text import parse_json
from pluralllm_app.core.locks import held
from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import Answer
from pluralllm_app.judge.plan import Prompt

FORMAT = {"format": "pluralllm answers of language models", "version": 1}


class KeptAnswers:
    """The file, open for this process alone."""

    def __init__(self, path: Path, stream: BinaryIO, lines: dict[str, Any]) -> None:
        """Use `open_answers` instead."""
        self.path = path
        self._stream = stream
        self._lines = lines

    def get(self, key: str, options: int) -> Answer | None:
        """The answer under a key to a question with so many options; None where there is none.

        Raises:
            UserError: it is damaged.
        """
        if key not in self._lines:
            return None
        try:
            named, total = self._lines[key]
            return Answer.checked(named, total, options)
        except (TypeError, ValueError, OverflowError) as error:
            raise damaged(self.path, str(error)) from error

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        value = [list(answer.named), answer.total]
        self._lines[key] = value
        self._stream.write(json.dumps({key: value}).encode() + b"\n")
        self._stream.flush()


def key_of(identity: str, kind: str, prompt: Prompt) -> str:
    """What the answer to a prompt is kept under."""
    content = json.dumps([identity, kind, prompt.text])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def damaged(path: Path, why: str) -> UserError:
    """What to say of a file that cannot be read."""
    return UserError(f"{path} is damaged ({why}): remove it, or give another --cache")


@contextmanager
def open_answers(path: Path) -> Iterator[KeptAnswers]:
    """Open the file, which is made if need be, for the block.

    A last line without an end, as a killed process leaves it, is cut off.

    Raises:
        UserError: another process uses it, it holds something else, or it cannot be written.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"another command is using {path}: wait for it, or give another --cache"
        lock = held(path.with_name(f".{path.name}.lock"), busy)
    except OSError as error:
        raise _unusable(path, error) from error
    with lock:
        try:
            stream = path.open("a+b")
        except OSError as error:
            raise _unusable(path, error) from error
        with stream:
            yield KeptAnswers(path, stream, _read(path, stream))


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path} ({error.strerror}): give another --cache")


def _read(path: Path, stream: BinaryIO) -> dict[str, Any]:
    stream.seek(0)
    content = stream.read()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    if not lines:
        if content and not json.dumps(FORMAT).encode().startswith(content):
            raise damaged(path, "it holds something else than answers")
        stream.truncate(0)
        stream.write(json.dumps(FORMAT).encode() + b"\n")
        stream.flush()
        return {}
    found = _objects(path, lines)
    if found[0] != FORMAT:
        raise damaged(path, "it holds something else than answers, or is of another version")
    stream.truncate(whole)
    return {key: value for line in found[1:] for key, value in line.items()}


def _objects(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(lines, 1):
        try:
            content = parse_json(line)
        except ValueError as error:
            raise damaged(path, f"line {number}: {error}") from error
        if not isinstance(content, dict):
            raise damaged(path, f"line {number} is no object")
        found.append(content)
    return found
