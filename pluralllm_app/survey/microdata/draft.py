"""A draft of the map from the variables of a file to questions, to be read and edited by people.

What is a question and what is no answer is guessed from labels, as `profiles` has them, and from
what occurs. Every guess is written down in the draft, and nothing of it is used before somebody
has passed the draft on as --map.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.boxes import undeclared_sets
from pluralllm_app.survey.microdata.codes import UNLABELLED, place, sorted_codes
from pluralllm_app.survey.microdata.files import Microdata
from pluralllm_app.survey.microdata.mapping import UNANSWERED
from pluralllm_app.survey.microdata.profiles import Profile
from pluralllm_app.survey.microdata.variables import (
    MISSING,
    MultipleSet,
    Variable,
    number_of,
)

MOST_OPTIONS = 25  # with more, a variable is a number or a name rather than a question
MOST_CODES = 200  # different ones that are looked at
_ORDERED = ("ordinal", "scale")
_MAY_BE_MISSING = (7, 8, 9, 77, 88, 97, 98, 99, 777, 888, 997, 998, 999)  # if they lie apart
_HEAD = """\
# Draft of a map from the variables of {file} to questions{profile}. Read it, and edit:
# - remove what no group should be asked about, such as age, sex and country;
# - write questions as people were asked them, since a label may be cut short;
# - "don't know" and the like are left out; to keep one as an option, move it to options;
# - set ordered = true where the codes are places on a scale, false where they are not;
# - say in weight and by which columns these are: remove the # before them.
# Then: pluralllm questionnaire {out} --out DIR, and pluralllm site create DIR --map {out} ...
"""


@dataclass
class Draft:
    """The text of a draft, and what to say of it."""

    text: str
    questions: int
    left_out: dict[str, int] = field(default_factory=dict)  # by reason: questions with such a code
    skipped: list[str] = field(default_factory=list)  # variables that are no questions
    guessed: list[str] = field(default_factory=list)  # sets that the file does not declare


def draft_map(data: Microdata, profile: Profile, out: Path) -> Draft:
    """Return a draft for a file.

    Args:
        data: the file, of which all rows are read.
        profile: the conventions of the survey.
        out: where the draft will be, for its comments.

    Raises:
        SurveyError: the file cannot be read, or nothing in it looks like a question.
    """
    variables = data.dictionary.variables
    weight = profile.find(profile.weights, list(variables))
    by = profile.find(profile.groups, list(variables))
    asked = [name for name in variables if name not in (weight, by)]
    codes = _codes(data, asked)
    draft = Draft("", 0)
    parts = []
    declared = data.dictionary.sets
    in_sets = {name for own in declared for name in own.variables}
    loose = {name: variables[name] for name in asked if name not in in_sets}
    guessed = undeclared_sets(loose, codes, profile)
    in_sets |= {name for own in guessed for name in own.variables}
    for name in asked:
        if name in in_sets:
            continue
        part = _question(variables[name], codes[name], profile, draft)
        if part:
            parts.append(part)
        else:
            draft.skipped.append(name)
    for own in declared:
        parts.append(_set(own, variables, codes, profile, draft))
    for own in guessed:
        parts.append(_GUESS + _set(own, variables, codes, profile, draft))
        draft.guessed.append(f"{own.variables[0]} to {own.variables[-1]}")
    if not parts:
        raise SurveyError(
            f"{data.file}: no variable has from 2 to {MOST_OPTIONS} codes, so that none looks like "
            "a question with options"
        )
    draft.questions = len(parts)
    head = _HEAD.format(
        file=data.file.name,
        profile=f" ({profile.name})" if profile.codes or profile.weights else "",
        out=out.name,
    )
    weights = [name for name in draft.skipped if _named(_WEIGHT, name, variables[name].label)]
    groups = [name for name in asked if _named(_GROUP, name)]
    lines = [head, f"weight = {_toml(weight)}" if weight else _guessed(_NO_WEIGHT, weights)]
    lines.append(f"by = [{_toml(by)}]" if by else _guessed(_NO_BY, groups))
    text = "\n".join([*lines, "", *parts])
    if draft.skipped:
        names = ", ".join(draft.skipped)
        text += f"\n# No questions, it seems: {names}\n"
    draft.text = text
    return draft


_GUESS = "# A guess from names and labels: the file does not say that these are one set.\n"
_NO_WEIGHT = '# weight = {}   # the column of weights, or "none"'
_NO_BY = "# by = [{}]   # the columns of groups; without by, all of the file is one group"
# What columns of weights and of groups are called, in whole words.
_WEIGHT = "weights?|wgts?|wts?|gewicht|poids|ponderation|peso|ponderacion"
_GROUP = "country|cntry|nation|region|land|bundesland|state|province|canton"


def _named(words: str, *texts: str) -> bool:
    return any(re.search(rf"(?<![a-z])(?:{words})(?![a-z])", text.casefold()) for text in texts)


def _guessed(line: str, names: Sequence[str]) -> str:
    """Return the line of a setting with the first of the names that it may have, and the others."""
    also = f"; perhaps {', '.join(names[1:])}" if names[1:] else ""
    return line.format(_toml(names[0] if names else "COLUMN")) + also


def _codes(data: Microdata, names: Sequence[str]) -> dict[str, list[str] | None]:
    """Return the codes that occur in each variable, None where there are too many."""
    found: dict[str, dict[str, None] | None] = {name: {} for name in names}
    for people in data.read(names):
        for name, (places, texts) in people.codes.items():
            own = found[name]
            if own is not None:
                own |= dict.fromkeys(texts[at] for at in np.unique(places[places >= 0]).tolist())
                found[name] = own if len(own) <= MOST_CODES else None
    return {name: None if own is None else sorted(own, key=place) for name, own in found.items()}


def _question(
    variable: Variable, found: Sequence[str] | None, profile: Profile, draft: Draft
) -> str:
    """Return a question, "" if the variable is none."""
    if found is None:
        return ""
    options, left_out = sorted_codes(variable, found, profile)
    if not 2 <= len(options) <= MOST_OPTIONS:
        return ""
    for reason in {*left_out.values()}:
        draft.left_out[reason] = draft.left_out.get(reason, 0) + 1
    ordered = variable.measure in _ORDERED and all(number_of(c) is not None for c in options)
    return "\n".join(
        [
            "[[question]]",
            f"id = {_toml(variable.name)}",
            f"variable = {_toml(variable.name)}",
            f"question = {_toml(variable.label or variable.name)}",
            f"ordered = {str(ordered).lower()}",
            *_doubts(variable, options),
            *_list("options", "option", _distinct(options)),
            *_list("left-out", "reason", left_out),
            "",
        ]
    )


def _doubts(variable: Variable, options: Mapping[str, str]) -> list[str]:
    """A comment on codes without labels that lie apart, as those of refusals do: 1 to 4, 8, 9."""
    if variable.labels:
        return []
    numbers = [int(code) for code in options if code.lstrip("-").isdecimal()]
    answers = sorted(number for number in numbers if number >= 0)
    last = next((a for a, b in pairwise(answers) if b > a + 1), max(answers, default=0))
    apart = [own for own in numbers if own < 0 or (own > last and own in _MAY_BE_MISSING)]
    if not apart:
        return []
    codes = ", ".join(map(str, apart))
    return [f"# without labels: if {codes} mean don't know or no answer, move them to left-out"]


def _set(
    own: MultipleSet,
    variables: Mapping[str, Variable],
    codes: Mapping[str, Sequence[str] | None],
    profile: Profile,
    draft: Draft,
) -> str:
    lines = ["[[set]]", f"id = {_toml(own.name)}", f"question = {_toml(own.label or own.name)}"]
    lines.append(f"variables = [{', '.join(map(_toml, own.variables))}]")
    found = {code for name in own.variables for code in codes.get(name) or ()}
    labels = {code: text for name in own.variables for code, text in variables[name].labels.items()}
    missing = [code for name in own.variables for code in variables[name].missing]
    ranges = [pair for name in own.variables for pair in variables[name].ranges]
    joined = Variable(own.name, own.label, labels, missing, ranges)
    options, left_out = sorted_codes(joined, sorted(found), profile)
    if own.chosen is not None and left_out.get("0") == UNLABELLED:
        options["0"] = left_out.pop("0")  # beside the ticked code, which alone has a label
    for reason in {*left_out.values()}:
        draft.left_out[reason] = draft.left_out.get(reason, 0) + 1
    if own.chosen is None:
        return "\n".join(
            [
                *lines,
                *_list("options", "option", _distinct(options)),
                *_list("left-out", "reason", left_out),
                "",
            ]
        )
    others = [code for code in options if code != own.chosen]
    lines.append(f"chosen = [{_code(own.chosen)}]")
    # Where nothing but the chosen code occurs, an empty cell is the other answer.
    lines.append(f"not-chosen = [{', '.join(map(_code, others or [MISSING]))}]")
    lines.append("options = [")
    for name in own.variables:
        option = own.options.get(name) or variables[name].label or name
        lines.append(f"    {{ variable = {_toml(name)}, option = {_toml(option)} }},")
    lines.append("]")
    if others:
        left_out = {**left_out, MISSING: UNANSWERED}
    return "\n".join([*lines, *_list("left-out", "reason", left_out), ""])


def _distinct(options: Mapping[str, str]) -> dict[str, str]:
    """Tell labels that collide apart by their codes: whether they are one option, people decide."""
    texts = list(options.values())
    return {
        code: f"{text} ({code})" if texts.count(text) > 1 else text
        for code, text in options.items()
    }


def _list(key: str, word: str, codes: Mapping[str, str]) -> Iterable[str]:
    if not codes:
        return []
    lines = [
        f"    {{ code = {_code(code)}, {word} = {_toml(text)} }}," for code, text in codes.items()
    ]
    return [f"{key} = [", *lines, "]"]


def _code(code: str) -> str:
    number = number_of(code)
    whole = number is not None and code.lstrip("-").isascii() and code.lstrip("-").isdecimal()
    return code if whole and str(int(code)) == code else _toml(code)


def _toml(text: str) -> str:
    """Return a text as TOML has it, in which JSON's are texts as well, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
