"""The conventions of surveys, from files: which codes are no answers, weights, groups."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pluralllm_app.core.names import look
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError

_FOLDER = Path(__file__).parent / "profiles"
_ANY = "any"
PROFILES = sorted(file.stem for file in _FOLDER.glob("*.toml") if file.stem != _ANY)
_CODE = re.compile(r"^\s*[-(\[]?\d+[)\].:]\s*")  # before a label that repeats its code: "-1. dk"
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_EDGES = " .,:;*-\u2013\u2014_\"'"


@dataclass(frozen=True)
class Profile:
    """The conventions of one survey."""

    name: str
    weights: Sequence[str] = ()  # names of columns, the best first; * stands for anything
    groups: Sequence[str] = ()
    codes: Mapping[str, str] = field(default_factory=dict)  # reason by code
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by reason

    def reason(self, code: str, label: str) -> str:
        """Return why a code is no answer, "" if it is one. What the label says counts first.

        >>> load_profile(None).reason("8", "Don\\u2019t know/Refused (DO NOT READ)")
        "don't know"
        >>> load_profile(None).reason("8", "I don't know anybody there")
        ''
        """
        return self._labelled(label) or (self.codes.get(code, "") if not label else "")

    def find(self, wanted: Sequence[str], columns: Sequence[str]) -> str | None:
        """Return the column that is first among the `wanted` names."""
        for name in wanted:
            for column in columns:
                if fnmatchcase(column.casefold(), name.casefold()):
                    return column
        return None

    def _labelled(self, label: str) -> str:
        known = {phrase: why for why, phrases in self.labels.items() for phrase in phrases}
        plain = look(_BRACKETS.sub(" ", _CODE.sub("", label))).strip(_EDGES)
        if not plain:
            return ""
        if plain in known:
            return known[plain]
        parts = [part.strip(_EDGES) for part in re.split(r"[/,;]|\bor\b|\boder\b", plain)]
        reasons = [known.get(part, "") for part in parts]
        return reasons[0] if all(reasons) else ""


def load_profile(name: str | None) -> Profile:
    """Return the profile called `name`; None: that of any survey.

    Raises:
        SurveyError: there is none.
    """
    if name is not None and name not in PROFILES:
        raise SurveyError(f"unknown profile {name!r}: {did_you_mean(name, PROFILES)}")
    common = tomllib.loads((_FOLDER / f"{_ANY}.toml").read_text("utf-8"))
    own = {} if name is None else tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))
    return Profile(**common | own)
