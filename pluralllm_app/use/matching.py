"""A group's answers, found among the questions of a survey and checked: shares that sum to 1."""

import math
from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from textwrap import shorten

import numpy as np

from pluralllm_app.core.segments import Doubles, segment_sums
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.wording import many
from pluralllm_app.errors import AnswersError
from pluralllm_app.survey.sources.share_sums import judge_sums
from pluralllm_app.use.given import Given, GivenAnswers
from pluralllm_app.use.questions import Catalogue, Question, named, told
from pluralllm_app.use.spelling import is_code

MOST_NAMED = 10  # new or misspelt questions that are each named, with the nearest of the survey
_HOW_NEW = (
    "what is really a new question is declared so, in a table by a column 'new' with yes, in "
    "Python by a Question in place of its text, over HTTP in the list 'new'"
)
MOST_PEOPLE = 1e12  # more have never lived; sums and squares of far larger numbers overflow


@dataclass(frozen=True, eq=False)
class KnownAnswers:
    """The answers of a group, each to a different question."""

    places: Sequence[int]  # of each question in the survey; -1 for one that it does not have
    questions: Sequence[Question]
    shares: Doubles  # flat, summing to 1 per question
    respondents: Doubles | None  # of each question; None where shares were given
    notes: Sequence[str]  # what was understood, as far as it is unusual

    def plus(self, other: "KnownAnswers") -> "KnownAnswers":
        """These answers and others.

        Raises:
            AnswersError: both answer one question.
        """
        answered = {question.key for question in self.questions}
        for question in other.questions:
            if question.key in answered:
                raise AnswersError(f"{named(question)} is answered already: leave it out")
        people = [
            np.full(len(each.questions), np.nan) if each.respondents is None else each.respondents
            for each in (self, other)
        ]
        respondents = np.concatenate(people)
        return KnownAnswers(
            [*self.places, *other.places],
            [*self.questions, *other.questions],
            np.concatenate([self.shares, other.shares]),
            None if np.isnan(respondents).all() else respondents,
            [*self.notes, *other.notes],
        )


def match_answers(given: GivenAnswers, catalogue: Catalogue) -> KnownAnswers:
    """Find the questions that were answered, and bring the numbers into one form.

    Raises:
        AnswersError: a question or option is not known or is misspelt, none is one of the survey, a
            number is no share or count, shares do not sum to 1 or 100, or a question is answered
            twice.
    """
    notes = list(given.notes)
    places, questions, flat, lengths = [], [], [], []
    doubtful: list[tuple[Given, Question]] = []  # not in the survey, and nobody says that it is new
    seen: dict[object, str] = {}
    for each in given.answers:
        place, question = _question_of(each, catalogue, notes)
        key = question.key
        if key in seen:
            raise AnswersError(f"{each.place} and {seen[key]} answer one question: remove one")
        seen[key] = each.place
        places.append(place)
        questions.append(question)
        flat.append(_numbers_of(each, question, given.unit))
        lengths.append(len(question.options))
        if place < 0 and not each.may_be_new:
            doubtful.append((each, question))
    if not questions:
        return KnownAnswers([], [], np.zeros(0), None, notes)
    if doubtful:
        _refuse_misspelt(doubtful, catalogue, any(place >= 0 for place in places))
    new = [question for place, question in zip(places, questions, strict=True) if place < 0]
    for question in new:
        question.check()
    notes += _read_as_new(new, catalogue)
    numbers = np.concatenate(flat)
    shares, respondents = _as_shares(given, numbers, np.array(lengths), notes)
    return KnownAnswers(places, questions, shares, respondents, notes)


def _question_of(each: Given, catalogue: Catalogue, notes: list[str]) -> tuple[int, Question]:
    """The question that was answered, and its place in the survey, -1 if it is not there."""
    asked = each.question
    options = [str(name) for name in each.numbers] if isinstance(each.numbers, Mapping) else None
    place = catalogue.find(asked, options, notes)
    if place is not None:
        return place, catalogue.questions[place]
    wish = asked if isinstance(asked, Question) else Question(str(asked), ())
    if known := catalogue.with_text(wish.text):
        found = catalogue.questions[known[0]]
        lacking = found.lacks(wish.options or options or ())
        raise AnswersError(
            f"{each.place} has no option {lacking[0]!r}: {did_you_mean(lacking[0], found.options)}"
        )
    if not wish.options and options is None:
        near = catalogue.nearest(wish.text)
        raise AnswersError(
            f"{each.place} is none of the survey's: name the options to make it a new one"
            + (f"; {near}" if near else "")
        )
    return -1, Question(wish.text, wish.options or options or ())


def _refuse_misspelt(
    doubtful: Sequence[tuple[Given, Question]], catalogue: Catalogue, some_fit: bool
) -> None:
    if not some_fit:
        first = doubtful[0][1]
        near = catalogue.misspelt(first.text)
        nearest = f"the nearest: {near!r}" if near else catalogue.nearest(first.text)
        raise AnswersError(
            f"no answer is to a question of the survey, the first is to {named(first)}"
            + (f"; {nearest}" if nearest else "")
            + f". Name questions by their ids or texts in the survey; {_HOW_NEW}"
        )
    faults = []
    for each, question in doubtful:
        if near := catalogue.misspelt(question.text):
            faults.append(f"{_told_place(each, question)}: did you mean {shorten(near, 80)!r}?")
        elif is_code(question.text):
            faults.append(f"{_told_place(each, question)}: no question has this id")
    if faults:
        more = [f"... and {len(faults) - MOST_NAMED:,} more"] if len(faults) > MOST_NAMED else []
        raise AnswersError(
            "\n".join(
                [
                    "not questions of the survey, and hardly new ones:",
                    *faults[:MOST_NAMED],
                    *more,
                    f"Write names as the survey has them; {_HOW_NEW}.",
                ]
            )
        )


def _told_place(each: Given, question: Question) -> str:
    name = named(question)
    return name if each.place == name else f"{each.place}, {name}"


def _read_as_new(new: Sequence[Question], catalogue: Catalogue) -> list[str]:
    if len(new) > MOST_NAMED:
        return [
            f"{len(new):,} questions are none of the survey's and were read as new ones, the first "
            f"is {named(new[0])}"
        ]
    found = [f"{named(each)} is none of the survey's and was read as a new one" for each in new]
    near = [catalogue.nearest(each.text) for each in new]
    return [f"{note}; {text}" if text else note for note, text in zip(found, near, strict=True)]


def _numbers_of(each: Given, question: Question, unit: str | None) -> Doubles:
    """The numbers of the question's options, in their order; NaN where none was given."""
    numbers = each.numbers
    if not isinstance(numbers, Mapping):
        options = question.options
        if isinstance(each.question, Question) and each.question.options:
            options = each.question.options  # in whose order the numbers are
        if not isinstance(numbers, Sized) or isinstance(numbers, str | bytes | Set):
            raise AnswersError(
                f"{each.place} was given {numbers!r}: give a number for each option, by option or "
                "in their order"
            )
        if len(numbers) != len(options):
            raise AnswersError(
                f"{each.place} has {len(options)} options ({told(question)}) and was given "
                f"{many(len(numbers), 'number')}"
            )
        numbers = dict(zip(options, numbers, strict=True))
    found: dict[str, float] = {}
    for option, number in numbers.items():
        name = question.option(option)
        if name is None:
            raise AnswersError(
                f"{each.place} has no option {option!r}: "
                + did_you_mean(str(option), question.options)
            )
        if name in found:
            raise AnswersError(f"{each.place} was given two numbers for the option {name!r}")
        found[name] = _number(each, name, number, unit)
    return np.array([found.get(option, math.nan) for option in question.options])


def _number(each: Given, option: str, number: object, unit: str | None) -> float:
    try:
        value = float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(number, bool) or not 0 <= value <= MOST_PEOPLE:
        raise AnswersError(
            f"{each.place}: {number!r} of the option {option!r} is no {unit or 'share or count'}: "
            "give a number of 0 or more, and no more than people have ever lived"
        )
    return value


def _as_shares(
    given: GivenAnswers, numbers: Doubles, lengths: np.ndarray, notes: list[str]
) -> tuple[Doubles, Doubles | None]:
    given_at = ~np.isnan(numbers)
    numbers = np.where(given_at, numbers, 0.0)
    counts, sums = segment_sums(given_at, lengths), segment_sums(numbers, lengths)
    if (nothing := np.flatnonzero(sums == 0)).size:
        raise AnswersError(
            f"{given.answers[nothing[0]].place}: all its numbers are 0: leave it out, or say what "
            "the group answered"
        )
    unit = given.unit
    if unit != "count":
        judged = judge_sums(numbers, lengths, counts, percent=given.percent)
        whole = bool((numbers == np.rint(numbers)).all())
        if not len(judged.wrong):
            notes += [f"read as {note}" for note in judged.notes()]
            people = [math.nan if each.people is None else each.people for each in given.answers]
            known = None if np.isnan(people).all() else np.array(people)
            return numbers / np.repeat(sums, lengths), known
        if unit == "share" or not whole:
            first = given.answers[judged.wrong[0]]
            raise AnswersError(
                f"{first.place}: its {judged.kind} do not sum to {judged.whole}: {judged.fault()}"
            )
        if (some := np.flatnonzero(counts < lengths)).size:
            raise AnswersError(
                f"{given.answers[some[0]].place} was given numbers that sum to neither 1 nor 100, "
                "and none for some of its options: give the shares of all, or a 0 for options that "
                "nobody picked"
            )
        notes.append("read as numbers of people, since they are whole and do not sum to 1 or 100")
    counted = sums if (numbers == np.rint(numbers)).all() else None  # else sums of weights
    return numbers / np.repeat(sums, lengths), counted
