"""The map from the variables of a file to questions, as people edit it (TOML).

    weight = "W_WEIGHT"                 # a column, or "none"
    by = ["B_COUNTRY"]                  # columns whose values are the groups

    [[question]]
    id = "Q57"
    variable = "Q57"
    question = "Can most people be trusted?"
    ordered = false                     # true: codes are places on an ordinal scale
    options = [
        { code = 1, option = "Most people can be trusted" },
        { code = [2, 3], option = "Need to be very careful" },
    ]
    left-out = [
        { code = -1, reason = "don't know" },
        { code = "missing", reason = "not asked" },    # a cell that holds nothing
    ]

    [[set]]                             # several options may be picked: a yes/no question for each
    id = "media"
    question = "Which of these do you read?"
    variables = ["Q7_1", "Q7_2"]
    chosen = [1]                        # without it, each variable holds the code of an option
    not-chosen = [0, "missing"]         # [0] without it; "missing": a cell that holds nothing
    options = [
        { variable = "Q7_1", option = "Newspapers" },
        { variable = "Q7_2", option = "Blogs" },
    ]

Every code that occurs has to be in `options` or in `left-out`: nothing is left out in silence. Nor
is an empty cell of a set with `chosen`, beside answers: it may say "not picked" or "not asked".
"""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.names import clean_text
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.microdata.variables import MISSING, number_of
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.damaged_texts import damage

UNANSWERED = "no answer in the file"  # the reason for an empty cell that the map does not mention
_TOP = ("weight", "by", "question", "set")
_QUESTION = ("id", "variable", "question", "ordered", "options", "left-out")
_SET_OPTIONS = (
    'options = [{ variable = "Q7_1", option = "Newspapers" }, ...] with chosen = [the code of a '
    'picked option], or options = [{ code = 1, option = "Newspapers" }, ...]'
)
_SET = ("id", "variables", "question", "chosen", "not-chosen", "options", "left-out", "yes", "no")


@dataclass(frozen=True)
class MappedQuestion:
    """A question, and what each code of its variables says."""

    id: str
    text: str
    options: Sequence[str]
    values: Sequence[float] | None
    variables: Sequence[str]  # one, or those of a set
    places: Mapping[str, int]  # the option of a code
    reasons: Mapping[str, str]  # why a code is no answer
    # Of a set: the variable that tells whether the option was picked, None where any of them may
    # hold its code. People with nothing in any of the variables were not asked.
    member: str | None = None
    is_set: bool = False

    def is_known(self, code: str) -> bool:
        """Whether the map says what a code is."""
        return code in self.places or code in self.reasons


@dataclass(frozen=True)
class Map:
    """All questions of a map."""

    file: Path
    questions: Sequence[MappedQuestion]
    weight: str | None = None
    by: Sequence[str] = ()

    @property
    def variables(self) -> list[str]:
        """All variables, each once."""
        return list(dict.fromkeys(name for own in self.questions for name in own.variables))

    @property
    def twice(self) -> list[str]:
        """The variables of several questions or sets, which are likely to be one question."""
        asked = {
            (own.id.rpartition(":")[0] if own.is_set else own.id, name)
            for own in self.questions
            for name in own.variables
        }
        times = Counter(name for _, name in asked)
        return [name for name in self.variables if times[name] > 1]

    def content(self) -> Questions:
        """Return the questions as a survey has them."""
        questions = Questions(
            ids=[own.id for own in self.questions],
            texts=[own.text for own in self.questions],
            options=[own.options for own in self.questions],
            values=[own.values for own in self.questions],
        )
        try:
            questions.check()
        except SurveyError as error:
            raise SurveyError(f"{self.file}: {error}") from error
        return questions


def read_map(file: Path) -> Map:
    """Read a map.

    Raises:
        SurveyError: it cannot be read, or something in it is missing, unknown or contradicts
            itself; the message names the entry.
    """
    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SurveyError(f"cannot read the map {file}: {error}") from error
    entry = _Entry(str(file), content)
    entry.check(_TOP)
    questions: list[MappedQuestion] = []
    for number, own in enumerate(entry.tables("question"), 1):
        questions.append(_question(_Entry(f"{file}: question {own.get('id', number)!r}", own)))
    for number, own in enumerate(entry.tables("set"), 1):
        questions += _set(_Entry(f"{file}: set {own.get('id', number)!r}", own))
    if not questions:
        raise SurveyError(f"{file} has no [[question]] and no [[set]]")
    by = content.get("by", [])
    found = Map(file, questions, content.get("weight"), [by] if isinstance(by, str) else by)
    if not all(isinstance(name, str) for name in (found.weight or "", *found.by)):
        raise SurveyError(f"{file}: weight is a text, and by a list of texts")
    found.content()
    return found


@dataclass(frozen=True)
class _Entry:
    """A table of the map."""

    place: str  # for messages
    content: Mapping[str, Any]
    seen: dict[str, str] = field(default_factory=dict)  # what was said of each code

    def check(self, known: Sequence[str]) -> None:
        for key in self.content:
            if key not in known:
                raise SurveyError(f"{self.place} has {key!r}: {did_you_mean(key, known)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SurveyError(f"{self.place} needs {key} = a text")
        if isinstance(value, str) and (fault := damage(value)):
            raise SurveyError(f"{self.place}: {key} {value[:80]!r} {fault}")
        if isinstance(value, str) and (found := hidden(value)):
            raise SurveyError(
                f"{self.place}: {key} {value[:80]!r} has the hidden character {found}"
            )
        if not (said := cell_text(value)):
            raise SurveyError(f"{self.place} has an empty {key}")
        return said

    def tables(self, key: str) -> list[dict[str, Any]]:
        found = self.content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(own, dict) for own in found):
            raise SurveyError(f"{self.place}: {key} is a list of tables, as in {{ code = 1, ... }}")
        return found

    def codes(self, value: Any, what: str) -> list[str]:
        """Return codes as texts, none of which was mentioned before."""
        several = value if isinstance(value, list) else [value]
        if not several or not all(
            isinstance(own, str | int | float) and not isinstance(own, bool) for own in several
        ):
            raise SurveyError(f"{self.place}: {what} needs a code, or a list of codes")
        codes = [cell_text(own) for own in several]
        for code in codes:
            if code in self.seen:
                raise SurveyError(
                    f"{self.place} mentions code {code!r} as {self.seen[code]} and as {what}"
                )
            self.seen[code] = what
        return codes


def _question(entry: _Entry) -> MappedQuestion:
    entry.check(_QUESTION)
    ordered = entry.content.get("ordered", False)
    if not isinstance(ordered, bool):
        raise SurveyError(f"{entry.place}: ordered is true or false")
    options: list[str] = []
    values: list[float] = []
    places: dict[str, int] = {}
    for own in entry.tables("options"):
        part = _Entry(f"{entry.place}: option {own.get('option')!r}", own)
        part.check(("code", "option", "value"))
        option = part.text("option")
        if option in options:
            raise SurveyError(
                f"{entry.place} has option {option!r} twice: put its codes into one list"
            )
        codes = entry.codes(own.get("code"), f"option {option!r}")
        if ordered and "value" not in own and (reason := load_profile(None).reason("", option)):
            raise SurveyError(
                f"{part.place} reads like {reason!r}, and would be at place {codes[0]} of the "
                "scale: move it to left-out, give it a value = its place on the scale, or write "
                "ordered = false"
            )
        places |= dict.fromkeys(codes, len(options))
        options.append(option)
        if ordered:
            values.append(_value(part, own.get("value"), codes))
        elif "value" in own:
            raise SurveyError(f"{part.place} has a value: write ordered = true, or remove it")
    if MISSING in places:
        raise SurveyError(f"{entry.place}: an empty cell is no answer, put it into left-out")
    return MappedQuestion(
        id=entry.text("id"),
        text=entry.text("question"),
        options=options,
        values=values if ordered else None,
        variables=[entry.text("variable")],
        places=places,
        reasons={MISSING: UNANSWERED} | _reasons(entry),
    )


def _value(part: _Entry, given: Any, codes: Sequence[str]) -> float:
    if given is None and len(codes) == 1:
        given = number_of(codes[0])
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given):
        raise SurveyError(
            f"{part.place} needs value = its place on the scale, since its code is no single number"
        )
    return float(given)


def _reasons(entry: _Entry) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for own in entry.tables("left-out"):
        part = _Entry(f"{entry.place}: left-out", own)
        part.check(("code", "reason"))
        reason = clean_text(part.text("reason"))
        reasons |= dict.fromkeys(entry.codes(own.get("code"), "left out"), reason)
    return reasons


def _set(entry: _Entry) -> list[MappedQuestion]:
    entry.check(_SET)
    variables = entry.content.get("variables")
    if not isinstance(variables, list) or not all(isinstance(own, str) for own in variables):
        raise SurveyError(f"{entry.place} needs variables = a list of names")
    id_, text = entry.text("id"), entry.text("question")
    yes, no = entry.text("yes", "Yes"), entry.text("no", "No")
    single = "chosen" in entry.content
    places: dict[str, int] = {}
    if single:
        places |= dict.fromkeys(entry.codes(entry.content["chosen"], "chosen"), 0)
        places |= dict.fromkeys(entry.codes(entry.content.get("not-chosen", [0]), "not-chosen"), 1)
    parts = [
        (own, _Entry(f"{entry.place}: option {own.get('option')!r}", own))
        for own in entry.tables("options")
    ]
    if not parts:
        raise SurveyError(f"{entry.place} needs {_SET_OPTIONS}")
    picked: list[tuple[str, str, list[str]]] = []  # option, variable or "", codes
    for own, part in parts:
        if not single and "variable" in own:
            raise SurveyError(
                f"{part.place} has a variable, so the set needs chosen = [the code of a picked "
                "option], as in chosen = [1]"
            )
        part.check(("variable", "option") if single else ("code", "option"))
        option = part.text("option")
        if single and part.text("variable") not in variables:
            raise SurveyError(f"{part.place} has a variable that is not among variables")
        codes = [] if single else entry.codes(own.get("code"), f"option {option!r}")
        picked.append((option, part.text("variable") if single else "", codes))
    named = [variable for _, variable, _ in picked]
    if single and (lacking := [name for name in variables if name not in named]):
        raise SurveyError(
            f"{entry.place} has no option for {', '.join(map(repr, lacking))} of its variables: "
            "give each one an entry in options, or remove it from variables"
        )
    reasons = _reasons(entry)
    if not single:
        reasons = {MISSING: UNANSWERED} | reasons
    every = [code for _, _, codes in picked for code in codes]
    return [
        MappedQuestion(
            id=f"{id_}:{variable or codes[0]}",
            text=clean_text(f"{text} {option}"),
            options=[yes, no],
            values=None,
            variables=variables,
            places=places if single else {code: int(code not in codes) for code in every},
            reasons=reasons,
            member=variable or None,
            is_set=True,
        )
        for option, variable, codes in picked
    ]
