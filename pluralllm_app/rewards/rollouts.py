"""Prompts and completions as trainers give them, as plain texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pluralllm_app.core.json_text import parse_json
from pluralllm_app.errors import AnswersError

COLUMNS = ("question_id", "question", "options")


@dataclass(frozen=True)
class Rollout:
    """One completion, with what it answers."""

    place: str  # for messages
    prompt: str  # all of it
    completion: str
    named: bool  # whether columns say what the question is
    question_id: str | None
    question: str | None
    options: tuple[str, ...]  # in the prompt's order; () where no column has them


def rollouts(
    prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Sequence[Any] | None]
) -> list[Rollout]:
    """Put prompts, completions and columns together, row by row.

    Args:
        prompts: texts, or lists of messages with role and content.
        completions: likewise, one for each prompt.
        columns: `COLUMNS`, each with a value per completion, or None where the data have none.

    Raises:
        AnswersError: their numbers differ, or one is no text and no list of messages.
    """
    count = len(completions)
    for name, values in {"prompts": prompts, **columns}.items():
        if isinstance(values, str):
            raise AnswersError(f"{name} is one text: give a list with one for each completion")
        if values is not None and len(values) != count:
            raise AnswersError(
                f"{len(values)} {name} and {count} completions were given: give one for each "
                "completion"
            )
    named = columns["question_id"] is not None or columns["question"] is not None

    def cell(name: str, row: int) -> Any:
        values = columns[name]
        return None if values is None else values[row]

    found = []
    for row in range(count):
        id_, text, options = (cell(name, row) for name in COLUMNS)
        found.append(
            Rollout(
                place=f"completion {row + 1}",
                prompt=_text(prompts[row], f"prompt {row + 1}", last=False),
                completion=_text(completions[row], f"completion {row + 1}", last=True),
                named=named,
                question_id=None if id_ is None else str(id_),
                question=None if text is None else str(text),
                options=_options(options, f"the options of completion {row + 1}"),
            )
        )
    return found


def _text(given: Any, place: str, last: bool) -> str:
    """A text as it is; of messages all that they say, or the last one alone.

    Where that is what a tool said, the model has not come to answer.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Sequence) and all(isinstance(each, dict) for each in given):
        if last:
            given = [each for each in given[-1:] if each.get("role") != "tool"]
        return "\n".join(_content(message.get("content"), place) for message in given)
    raise AnswersError(
        f"{place} is of type {type(given).__name__}: give a text, or a list of messages with role "
        "and content"
    )


def _content(content: Any, place: str) -> str:
    """What a message says: a text, parts of type text, or nothing where it only calls a tool."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(isinstance(part, dict) for part in content):
        texts = [part for part in content if part.get("type") == "text"]
        if all(isinstance(part.get("text"), str) for part in texts):
            return "\n".join(part["text"] for part in texts)
    raise AnswersError(f"{place} has a message whose content is neither text nor parts")


def _options(given: Any, place: str) -> tuple[str, ...]:
    if isinstance(given, str):  # files of some trainers have no lists
        try:
            given = parse_json(given)
        except ValueError:
            given = None
        if not isinstance(given, list):
            raise AnswersError(f"{place} are one text: give a list of texts")
    if given is not None and not isinstance(given, Iterable):
        raise AnswersError(f"{place} are {given!r}: give a list of texts")
    return () if given is None else tuple(map(str, given))
