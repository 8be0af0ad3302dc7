"""Every setting with its default, what it may be, and a line about it.

Defaults and lines are read from pyproject.toml, what a setting may be from the dataclasses that
check it. So there is one place for each.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from pluralllm_app.engines.app_files import APP
from pluralllm_app.settings import SECTIONS, Scalar, allowed, section_keys
from pluralllm_app.settings_files import read_defaults

_TABLE = re.compile(r"\[tool\.flwr\.app\.config(\.[\w-]+)?\]")
_SETTING = re.compile(r"""([\w-]+) = (?:"[^"]*"|[^#"]*?)\s*(?:# *(.*))?""")


@dataclass(frozen=True)
class SettingLine:
    """A setting as a user reads of it."""

    name: str
    default: Scalar
    allowed: str
    about: str


def list_settings() -> Iterator[SettingLine]:
    """Yield all settings, in the order of pyproject.toml, in which options of strategies are last.

    It takes a moment until the first of these comes.
    """
    file = APP / "pyproject.toml"
    about = _comments(file.read_text("utf-8"))
    allowed_by_name = dict(_allowed(SECTIONS.values()))
    asked = False
    for name, default in read_defaults(file).items():
        if "." in name and not asked:
            from pluralllm_app.federation.strategies import STRATEGIES  # imports Flower and torch

            for strategy, kind in STRATEGIES.items():
                allowed_by_name |= dict(_allowed([kind], strategy))
            asked = True
        yield SettingLine(name, default, allowed_by_name.get(name, ""), about.get(name, ""))


def _allowed(sections: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings in some dataclasses, and what each may be."""
    for section in sections:
        hints = get_type_hints(section, include_extras=True)
        for key, field in zip(section_keys(section, prefix), fields(section), strict=True):
            yield key, allowed(hints[field.name])


def _comments(pyproject: str) -> dict[str, str]:
    """The comment of each setting, which may go on in the lines below it."""
    found: dict[str, str] = {}
    prefix, name = None, ""
    for line in pyproject.splitlines():
        if line.startswith("["):
            table = _TABLE.fullmatch(line)
            prefix = (table[1] or "")[1:] if table else None
        elif prefix is None:
            continue
        elif setting := _SETTING.fullmatch(line):
            name = f"{prefix}.{setting[1]}" if prefix else setting[1]
            found[name] = setting[2] or ""
        elif line.lstrip().startswith("#") and line.startswith(" "):
            found[name] += " " + line.strip("# ")
    return found
