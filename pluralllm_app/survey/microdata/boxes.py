"""Sets of boxes to tick that a file does not declare: q7_1 to q7_6, each ticked or not.

Names, codes and labels have to agree: a stem with numbers or letters, the same codes, of which one
says "ticked", and labels that begin alike. Such a set counts what single questions on its variables
would. Where a box that is not ticked is an empty cell, a variable alone has one code and looks like
no question: only the set has a "no".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonprefix

from pluralllm_app.survey.microdata.codes import sorted_codes
from pluralllm_app.survey.microdata.profiles import Profile
from pluralllm_app.survey.microdata.variables import MultipleSet, Variable

LEAST = 3  # boxes of a set
_NAME = re.compile(r"(.+?)([_.-]?)([0-9]+|[a-z])", re.IGNORECASE)
_WIDE = "\uff1f\uff1a\u3002\uff09\u3011"  # full-width ? : . ) ], which no space follows
_WORDS = re.compile(rf".*[\s{_WIDE}]", re.DOTALL)
_DASHES = "-\u2013\u2014"
_SIGNS = tuple(f"?:.)]\u2026{_DASHES}{_WIDE}")
_LEAST_WORDS = 3  # of a beginning that none of these signs ends

Box = tuple[str, str | None]  # the code of a ticked box, and of another; None: an empty cell


def undeclared_sets(
    variables: Mapping[str, Variable],
    codes: Mapping[str, Sequence[str] | None],
    profile: Profile,
) -> list[MultipleSet]:
    """Return the sets that there may be among some variables.

    Args:
        variables: what the file says of them, by name.
        codes: those that occur in each, None where there are too many.
        profile: says which labels are those of boxes.
    """
    stems: dict[tuple[str, str, Box], list[tuple[int, str, str]]] = {}
    for name, variable in variables.items():
        match = _NAME.fullmatch(name)
        if match and (box := _box(variable, codes[name], profile)):
            end = match[3].lstrip("0").casefold()
            # Sorted, 2 comes before 10.
            stems.setdefault((match[1], match[2], box), []).append((len(end), end, name))
    found: dict[str, MultipleSet] = {}
    for (stem, sign, (chosen, _)), ends in stems.items():
        names = [name for *_, name in sorted(ends)]
        texts = _texts(variables, names, chosen, f"{stem}:" if sign else "")
        for run in _runs(names, texts):
            beginning = _beginning([texts[name] for name in run])
            options = {name: texts[name][len(beginning) :].strip() for name in run}
            name = run[0] if stem in found else stem
            found[name] = MultipleSet(name, beginning.rstrip(f" :{_DASHES}"), run, chosen, options)
    return [*found.values()]


def _box(variable: Variable, found: Sequence[str] | None, profile: Profile) -> Box | None:
    options, _ = sorted_codes(variable, found or (), profile)
    codes = list(options)
    if not variable.labels and codes in (["0"], ["0", "1"]):
        return "1", "0"  # maybe nobody ticked it
    said = [profile.box(label) for label in options.values()]
    if len(codes) == 1 and said != ["empty"]:
        return codes[0], None
    if sorted(said) == ["empty", "ticked"]:
        return codes[said.index("ticked")], codes[said.index("empty")]
    return None


def _texts(
    variables: Mapping[str, Variable], names: Sequence[str], chosen: str, unlabelled: str
) -> dict[str, str]:
    """Return what each variable asks: its label, and what tells it from the others."""
    labels = {
        name: re.sub(rf"^{re.escape(name)}(\W+|$)", "", variables[name].label, flags=re.IGNORECASE)
        or unlabelled
        for name in names
    }
    ticked = {name: variables[name].labels.get(chosen, "") for name in names}
    if len({*labels.values()}) == len(names):
        return labels
    ends = ticked if len({*ticked.values()}) == len(names) else {name: name for name in names}
    return {name: f"{labels[name]} {ends[name]}" for name in names}


def _runs(names: Sequence[str], texts: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield variables in a row whose texts begin alike, with the same question where it ends."""
    run: list[str] = []
    begun = ""  # what the texts of a run of several begin with
    for name in names:
        shared = _beginning([texts[own] for own in (*run, name)]) if run else ""
        if run and (not shared or (begun.endswith(_SIGNS) and not shared.endswith(_SIGNS))):
            if len(run) >= LEAST:
                yield run
            run, shared = [], ""
        run.append(name)
        begun = shared
    if len(run) >= LEAST:
        yield run


def _beginning(texts: Sequence[str]) -> str:
    """Return the words that all texts begin with, "" where they are too few for a question.

    >>> _beginning(["Where do you get news? Television", "Where do you get news? Telephone"])
    'Where do you get news?'
    """
    match = _WORDS.match(commonprefix(list(texts)))  # noqa: RUF071 (they are no paths)
    words = match[0].strip() if match else ""
    return words if words.endswith(_SIGNS) or len(words.split()) >= _LEAST_WORDS else ""
