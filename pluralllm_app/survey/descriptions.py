"""The texts that say who each group is, which tell a predictor something before the first answer.

A text begins with the group's name, in words that stand alone: "People in Japan". What the source
or a table of the user's says besides follows: "People in Japan: East Asia, rich, democracy".
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import MOST_CHARACTERS, Description, SurveyContent
from pluralllm_app.survey.embedders.base import Embedder
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.damaged_texts import damage
from pluralllm_app.survey.sources.table_files import TableReader

COLUMNS = ("group", "description")
WISHES = ("names", "none")  # besides the path of a table


def described(
    survey: SurveyContent, groups: Iterable[str], wish: str, encoding: str | None, notes: list[str]
) -> dict[str, str]:
    """Return the text that describes each of `groups`; no text at all for the wish "none".

    Args:
        survey: with all groups of the source.
        groups: those that take part.
        wish: "names" (with what the source says besides), "none", or the path of a table with the
            columns group and description.
        encoding: of such a table where it is not in Unicode, if the user states it.
        notes: where to add what was found out about such a table.

    Raises:
        SurveyError: there is no such table, one of its rows is wrong, the source has descriptions
            of its own, or a text is too long.
    """
    if wish == "none":
        return {}
    lines = survey.descriptions
    if wish != "names":
        if lines:
            raise SurveyError(
                f"{survey.source} describes its groups itself: leave --descriptions out, or remove "
                "the column 'description'"
            )
        lines = _read(Path(wish), survey.answers.groups, encoding, notes)
    texts = {}
    for group in sorted(groups):
        name = survey.names.get(group, group)
        text = f"{name}: {lines[group]}" if group in lines else name
        if len(text) > MOST_CHARACTERS:
            raise SurveyError(
                f"the description of group {group!r} has {len(text):,} characters, name included: "
                f"shorten it to {MOST_CHARACTERS:,}, or pass --descriptions none"
            )
        texts[group] = text
    return texts


def embed_descriptions(
    embedder: Embedder, name: str, texts: Mapping[str, str]
) -> dict[str, Description]:
    """Embed the text of each group; the user knows the embedder by `name`.

    Raises:
        SurveyError: it gives numbers that are not finite, or a text has hidden characters.
    """
    if not texts:
        return {}
    for group, text in texts.items():
        if found := hidden(text):
            raise SurveyError(
                f"the description of group {group!r}, {text!r}, has the hidden character {found}: "
                "remove it"
            )
    rows = embedder.describe(list(texts.values()))
    for text, row in zip(texts.values(), rows, strict=True):
        if not np.isfinite(row).all():
            raise SurveyError(
                f"embedder {name!r} gives numbers that are not finite for the description "
                f"{text!r}: choose another model, or pass --descriptions none"
            )
    return {
        name: Description(text, row) for (name, text), row in zip(texts.items(), rows, strict=True)
    }


def _read(
    file: Path, known: Iterable[str], encoding: str | None, notes: list[str]
) -> dict[str, str]:
    if not file.exists():
        raise SurveyError(f"--descriptions {file}: there is no such file; pass one, names, or none")
    groups = set(known)
    lines: dict[str, str] = {}
    for frame in TableReader(file, COLUMNS, encoding=encoding, of_several=True, notes=notes):
        cells = frame.loc[:, list(COLUMNS)].astype(object)
        for row, group, text in cells.itertuples():
            name, line = cell_text(group), cell_text(text)
            if not name and not line:
                continue
            place = f"{file}: data row {row + 1}"
            for cell in (group, text):
                if isinstance(cell, str) and (fault := damage(cell)):
                    raise SurveyError(f"{place}: {cell[:80]!r} {fault}")
            if name not in groups:
                raise SurveyError(
                    f"{place} is of unknown group {name!r}: {did_you_mean(name, groups)}"
                )
            if not line:
                raise SurveyError(f"{place} has no description of {name!r}: write one or remove it")
            if name in lines:
                raise SurveyError(f"{place} describes {name!r} a second time: remove one")
            lines[name] = line
    return lines
