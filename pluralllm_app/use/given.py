"""A group's answers as they were given: numbers for options of questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pluralllm_app.errors import AnswersError
from pluralllm_app.use.questions import Question

Unit = Literal["share", "count"]
Numbers = Mapping[str, float] | Sequence[float]
_TRUTH = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}


@dataclass(frozen=True)
class Given:
    """The numbers that were given for one question."""

    question: str | Question  # id, text, or all of it
    numbers: Numbers  # by option; or of all options, in their order
    place: str  # where it stands, for messages
    people: float | None = None  # whose shares these are, where it is known
    may_be_new: bool = False  # whether it is said that the survey need not have the question


@dataclass
class GivenAnswers:
    """All that was given of a group."""

    answers: list[Given]
    unit: Unit | None = None  # None: the numbers have to tell
    percent: bool = False  # whether shares are known to be percentages
    notes: list[str] = field(default_factory=list)


def from_records(records: Iterable[tuple[str, Any]]) -> GivenAnswers:
    """Put records together, one for each option; each comes with its place for messages.

    Raises:
        AnswersError: one is incomplete or repeats an option, or some have shares and some counts.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    places: dict[tuple[str, str], str] = {}
    units: set[str] = set()
    new: set[tuple[str, str]] = set()
    for place, record in records:
        if not isinstance(record, Mapping):
            raise AnswersError(f"{place} is no mapping with question, option and share")
        question = _text(record, "question"), _text(record, "question_id")
        option = _text(record, "option")
        unit = [name for name in ("share", "count") if not _missing(record.get(name))]
        if not any(question) or not option or len(unit) != 1:
            raise AnswersError(
                f"{place} needs a question (or question_id), an option, and a share or a count"
            )
        units.update(unit)
        numbers = found.setdefault(question, {})
        places.setdefault(question, place)
        if _is_new(record, place):
            new.add(question)
        if option in numbers:
            raise AnswersError(f"{place} repeats the option {option!r} of its question: remove one")
        numbers[option] = record[unit[0]]
    if len(units) > 1:
        raise AnswersError("some records have a share and some a count: give all alike")
    given = []
    for question, numbers in found.items():
        text, id_ = question
        asked = Question(text, tuple(numbers), id_) if id_ else text
        given.append(Given(asked, numbers, places[question], may_be_new=question in new))
    unit_given: Unit | None = None
    if units:
        unit_given = "count" if "count" in units else "share"
    return GivenAnswers(given, unit_given)


def _is_new(record: Mapping[str, Any], place: str) -> bool:
    word = _text(record, "new")
    if word.casefold() not in _TRUTH:
        raise AnswersError(f"{place} has {word!r} as 'new': write yes or no")
    return _TRUTH[word.casefold()]


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return "" if _missing(value) else str(value)


def _missing(value: Any) -> bool:
    """Whether a value is None, NaN, or what pandas has for it, which compares with nothing."""
    return value is None or str(value) in ("nan", "NaN", "<NA>", "NaT")
