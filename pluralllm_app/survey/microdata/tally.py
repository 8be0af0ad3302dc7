"""Counts people by group, question and option, with their weights, batch by batch.

Memory depends on the number of groups and options, and not on that of people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.files import People
from pluralllm_app.survey.microdata.mapping import Map, MappedQuestion
from pluralllm_app.survey.microdata.variables import MISSING, Coded

Array = TypeVar("Array", Doubles, Ints)
_NEVER, _UNKNOWN = -1, -2  # not an answer for a known reason; a code that the map does not mention


@dataclass
class Unknown:
    """A code that the map does not mention."""

    people: int
    row: int  # the first, from 0


@dataclass
class Tally:
    """What has been counted so far, of G groups."""

    map: Map
    weights: list[Doubles] = field(default_factory=list)  # of each question, [G, options]
    # What follows is summed in the order of people, so that it does not depend on what they
    # answered, not even in its last bits.
    totals: list[Doubles] = field(default_factory=list)  # [G] of the weights of who answered
    squares: list[Doubles] = field(default_factory=list)  # [G] of their squares
    people: list[Ints] = field(default_factory=list)  # [G] who answered
    largest: list[Doubles] = field(default_factory=list)  # [G] weight of who answered
    answered: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """[G] to how many questions one person gave an answer, at most."""
    left_out: dict[tuple[int, str], Ints] = field(default_factory=dict)  # question, reason: [G]
    unknown: dict[tuple[str, str], Unknown] = field(default_factory=dict)  # variable and code
    # Which question notes the unknown codes of a variable; all questions of a set know the same.
    _noting: dict[tuple[str, frozenset[str]], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with no group."""
        for number, question in enumerate(self.map.questions):
            known = frozenset((*question.places, *question.reasons))
            for name in question.variables:
                self._noting.setdefault((name, known), number)
            self.weights.append(np.zeros((0, len(question.options))))
            self.totals.append(np.zeros(0))
            self.squares.append(np.zeros(0))
            self.people.append(np.zeros(0, np.int64))
            self.largest.append(np.zeros(0))

    def add(self, people: People, group: Ints, weight: Doubles, names: Sequence[str]) -> None:
        """Count people [n] that belong to a group and have a weight above 0.

        Args:
            people: a batch, of whom those without a group are not counted.
            group: [n], -1 for none.
            weight: [n]
            names: of the groups that there are by now.
        """
        groups = len(names)
        if not groups:
            return
        counted = np.flatnonzero(group >= 0)
        group, weight = group[counted], weight[counted]
        answers = np.zeros(len(group), np.int64)  # of each person
        for number, question in enumerate(self.map.questions):
            codes = {name: _taken(people.codes[name], counted) for name in question.variables}
            option, reason = self._options(number, question, codes, people.first + counted)
            given = option >= 0
            size = groups * len(question.options)
            flat = group[given] * len(question.options) + option[given]
            added = np.bincount(flat, weight[given], size).reshape(groups, -1)
            self.weights[number] = _grown(self.weights[number], groups) + added
            totals = np.bincount(group[given], weight[given], groups)
            self.totals[number] = _grown(self.totals[number], groups) + totals
            squares = np.bincount(group[given], weight[given] ** 2, groups)
            self.squares[number] = _grown(self.squares[number], groups) + squares
            persons = np.bincount(group[given], minlength=groups)
            self.people[number] = _grown(self.people[number], groups) + persons
            self.largest[number] = _grown(self.largest[number], groups)
            np.maximum.at(self.largest[number], group[given], weight[given])
            answers += given
            for why, mask in reason.items():
                if mask.any():
                    own = np.bincount(group[mask], minlength=groups)
                    before = self.left_out.get((number, why), np.zeros(0, np.int64))
                    self.left_out[number, why] = _grown(before, groups) + own
        self.answered = _grown(self.answered, groups)
        np.maximum.at(self.answered, group, answers)

    def refuse_unknown(self, what: str) -> None:
        """Raise SurveyError if a code occurred that the map does not mention."""
        if not self.unknown:
            return
        shown = [
            f"{variable} {'is empty' if code == MISSING else f'= {code!r}'} for "
            f"{many(own.people, 'person', 'people')}, first in data row {own.row + 1}"
            for (variable, code), own in list(self.unknown.items())[:5]
        ]
        more = f", and {len(self.unknown) - 5:,} more" if len(self.unknown) > 5 else ""
        if any(code == MISSING for _, code in self.unknown):
            raise SurveyError(
                f"{what} has empty cells of which {self.map.file} does not say what they mean, "
                f"beside answers to the same set: {'; '.join(shown)}{more}. Write in the [[set]] "
                'not-chosen = ["missing"] if an empty cell means "not picked" (with 0 before it, '
                'if that occurs too), or left-out = [{ code = "missing", reason = "not asked" }]'
            )
        raise SurveyError(
            f"{what} has codes that {self.map.file} does not mention: {'; '.join(shown)}{more}. "
            "Say of each what it is, in options or in left-out"
        )

    def _options(
        self, number: int, question: MappedQuestion, codes: Mapping[str, Coded], rows: Ints
    ) -> tuple[Ints, dict[str, Bools]]:
        """Return the option of each person [n], negative for none, and who has none, by reason."""
        known = frozenset((*question.places, *question.reasons))
        found = {name: _looked_up(question, own) for name, own in codes.items()}
        for name, (option, _) in found.items():
            if self._noting[name, known] == number:
                self._note_unknown(name, codes[name], option == _UNKNOWN, rows)
        if not question.is_set:
            ((option, reasons),) = found.values()
            return option, reasons
        empty = np.logical_and.reduce([codes[name][0] < 0 for name in question.variables])
        if question.member is not None:
            option, reasons = found[question.member]
            option = np.where(empty, _NEVER, option)
            if not question.is_known(MISSING):
                blank = (codes[question.member][0] < 0) & ~empty
                self._note(question.member, MISSING, blank, rows)
        else:
            option, reasons = _any_of(question, list(found.values()))
        asked = {why: mask & ~empty for why, mask in reasons.items()}
        return option, {**asked, "not asked": empty | asked.get("not asked", False)}

    def _note_unknown(self, name: str, codes: Coded, mask: Bools, rows: Ints) -> None:
        places, texts = codes
        for place in np.unique(places[mask & (places >= 0)]).tolist():
            self._note(name, texts[place], mask & (places == place), rows)

    def _note(self, name: str, code: str, mask: Bools, rows: Ints) -> None:
        own = np.flatnonzero(mask)
        if len(own):
            first = Unknown(0, int(rows[own[0]]))
            self.unknown.setdefault((name, code), first).people += len(own)


def _looked_up(question: MappedQuestion, codes: Coded) -> tuple[Ints, dict[str, Bools]]:
    places, texts = codes
    known = [*texts, MISSING]  # a place of -1 is the last
    of = {**dict.fromkeys(question.reasons, _NEVER), **question.places}
    option = np.array([of.get(code, _UNKNOWN) for code in known], np.int64)
    reasons: dict[str, Bools] = {}
    for at, code in enumerate(known):
        if option[at] == _NEVER:
            place = -1 if at == len(texts) else at
            mask = places == place
            why = question.reasons[code]
            reasons[why] = reasons[why] | mask if why in reasons else mask
    return option[places], reasons


def _any_of(
    question: MappedQuestion, found: Sequence[tuple[Ints, dict[str, Bools]]]
) -> tuple[Ints, dict[str, Bools]]:
    """Return "yes" where any variable holds the option's code, "no" where one holds another's."""
    options = np.stack([option for option, _ in found])
    answered = (options >= 0).any(axis=0)
    option = np.where((options == 0).any(axis=0), 0, np.where(answered, 1, _NEVER))
    reasons: dict[str, Bools] = {}
    taken = answered.copy()
    for _, own in found:
        for why, mask in own.items():
            if why != question.reasons[MISSING]:
                reasons[why] = reasons.get(why, np.zeros_like(taken)) | (mask & ~taken)
                taken |= mask
    return option, reasons


def _taken(codes: Coded, rows: Ints) -> Coded:
    return codes[0][rows], codes[1]


def _grown(array: Array, groups: int) -> Array:
    if len(array) == groups:
        return array  # which may be changed in place
    grown: Array = np.zeros((groups, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
