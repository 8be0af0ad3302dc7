"""The conventions of surveys, from files: which codes are no answers, weights, groups."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path

from pluralllm_app.core.names import look
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError

_FOLDER = Path(__file__).parent / "profiles"
_ANY = "any"
PROFILES = sorted(file.stem for file in _FOLDER.glob("*.toml") if file.stem != _ANY)
_CODE = re.compile(r"^\s*[-(\[]?\d+[)\].:]\s*")  # before a label that repeats its code: "-1. dk"
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_EDGES = " .,:;*-\u2013\u2014_\"'\u3002"
_BETWEEN = re.compile(r"[/,;\u3001\u30fb]|\b(?:or|oder|ou|o|of|lub|eller|veya|или)\b")


@dataclass(frozen=True)
class Profile:
    """The conventions of one survey."""

    name: str
    weights: Sequence[str] = ()  # names of columns, the best first; * stands for anything
    groups: Sequence[str] = ()
    codes: Mapping[str, str] = field(default_factory=dict)  # reason by code
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by reason
    boxes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # labels of "ticked", "empty"

    def reason(self, code: str, label: str) -> str:
        """Return why a code is no answer, "" if it is one. What the label says counts first.

        >>> load_profile(None).reason("8", "Don\\u2019t know/Refused (DO NOT READ)")
        "don't know"
        >>> load_profile(None).reason("8", "I don't know anybody there")
        ''
        """
        return self._labelled(label) or (self.codes.get(code, "") if not label else "")

    def box(self, label: str) -> str:
        """Return what a code says of a box to tick, "ticked" or "empty"; "" if of nothing such.

        >>> load_profile(None).box("Not selected")
        'empty'
        """
        return self._boxes.get(_plain(label), "")

    def find(self, wanted: Sequence[str], columns: Sequence[str]) -> str | None:
        """Return the column that is first among the `wanted` names."""
        for name in wanted:
            for column in columns:
                if fnmatchcase(column.casefold(), name.casefold()):
                    return column
        return None

    def _labelled(self, label: str) -> str:
        plain = _plain(label)
        if not plain:
            return ""
        if plain in self._reasons:
            return self._reasons[plain]
        reasons = [self._reasons.get(part.strip(_EDGES), "") for part in _BETWEEN.split(plain)]
        return reasons[0] if all(reasons) else ""

    @cached_property
    def _reasons(self) -> Mapping[str, str]:
        return _by_look(self.labels)

    @cached_property
    def _boxes(self) -> Mapping[str, str]:
        return _by_look(self.boxes)


def _by_look(phrases: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    return {_look(phrase): key for key, own in phrases.items() for phrase in own}


def _plain(label: str) -> str:
    return " ".join(_BRACKETS.sub(" ", _look(_CODE.sub("", label))).split()).strip(_EDGES)


def _look(text: str) -> str:
    return look(text).replace("\u0131", "i")  # Turkish, without a dot: its capital is I as well


@cache
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
