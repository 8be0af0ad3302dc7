"""Settings as a user writes them: TOML files, and texts like `key=value`."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pluralllm_app.errors import SettingsError
from pluralllm_app.settings import Scalar


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Join nested TOML tables into flat dotted keys, as Flower does."""
    flat: dict[str, Scalar] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Scalar):
            flat[prefix + key] = value
        else:
            raise SettingsError(f"{prefix}{key} must be a number, a text, true or false")
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises SettingsError if it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def read_defaults(pyproject: Path) -> dict[str, Scalar]:
    """Return every setting with its default, from `[tool.flwr.app.config]` of a pyproject.toml."""
    return flatten(read_toml(pyproject)["tool"]["flwr"]["app"]["config"])


_PAIR = re.compile(r"""([\w.-]+)=("[^"]*"|'[^']*'|\S+)""")


def parse_overrides(texts: list[str]) -> dict[str, Scalar]:
    """Parse texts like ``'key=value key2=value2'``, whose values are TOML or bare words."""
    overrides: dict[str, Scalar] = {}
    for text in texts:
        rest = _PAIR.sub("", text).strip()
        if rest:
            raise SettingsError(f"cannot read the setting {rest!r}: write key=value")
        for key, value in _PAIR.findall(text):
            try:
                parsed = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                parsed = value
            overrides |= flatten({key: parsed})
    return overrides
