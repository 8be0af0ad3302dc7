"""The sources that `pluralllm prepare` can read: each is a module here and an entry in `SOURCES`.

The command's help and error messages list them from here. A source's module is imported only when
it is read, so that `pluralllm --help` does not wait for pandas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.stated import Stated

if TYPE_CHECKING:
    from pluralllm_app.survey.content import SurveyContent


def _demo(file: None, seed: int, stated: Stated) -> "SurveyContent":
    from pluralllm_app.survey.sources.demo import demo

    return demo(seed)


def _globalopinionqa(file: Path | None, seed: int, stated: Stated) -> "SurveyContent":
    from pluralllm_app.survey.sources.globalopinionqa import read_global_opinions

    return read_global_opinions(file, stated)


def _opinionqa(file: Path, seed: int, stated: Stated) -> "SurveyContent":
    from pluralllm_app.survey.sources.opinionqa.layouts import read_opinionqa

    return read_opinionqa(file, stated.encoding)


def _table(file: Path, seed: int, stated: Stated) -> "SurveyContent":
    from pluralllm_app.survey.microdata.files import STATISTICS
    from pluralllm_app.survey.sources.table import read_table

    if file.suffix.lower() in STATISTICS:
        raise SurveyError(f"{file} has one row per person: `pluralllm prepare microdata` reads it")
    return read_table(file, stated)


def _microdata(file: Path, seed: int, stated: Stated) -> "SurveyContent":
    from pluralllm_app.survey.microdata.content import count_people

    return count_people(file, stated).content


@dataclass(frozen=True)
class Source:
    """What the command says about a source, and how it is read."""

    summary: str  # one line of `pluralllm prepare --help`
    file: Literal["none", "optional", "required"]  # whether --file belongs to it
    # From --file (None if not given), --seed, and what else is stated.
    read: Callable[[Any, int, Stated], "SurveyContent"]
    states: tuple[str, ...] = ()  # the fields of `Stated` that may be given
    damaged: bool = False  # whether texts were damaged where it was published


SOURCES = {
    "demo": Source("synthetic answers of fictional groups, generated from --seed", "none", _demo),
    "globalopinionqa": Source(
        "survey answers by country, read from --file or downloaded",
        "optional",
        _globalopinionqa,
        ("encoding",),
    ),
    "opinionqa": Source(
        "answers of 22 groups of Americans, read from --file: JSON records or the directory of "
        "the official data",
        "required",
        _opinionqa,
        ("encoding",),
        damaged=True,
    ),
    "table": Source(
        "your own answers, read from --file",
        "required",
        _table,
        ("encoding", "decimal", "source", "licence"),
    ),
    "microdata": Source(
        "one row per person, read from --file with a --map of its variables: .sav, .dta, .por and "
        "tables",
        "required",
        _microdata,
        ("encoding", "decimal", "source", "licence", "map", "weight", "by", "min_respondents"),
    ),
}


def read_source(
    name: str, file: Path | None, seed: int, stated: Stated | None = None
) -> "SurveyContent":
    """Read the source called `name`.

    Raises:
        SurveyError: there is no such source, `file` is missing or not wanted, something is stated
            that the source knows itself, or the source cannot be used, for example because a wrong
            encoding has damaged its texts, or they hold hidden characters.
    """
    stated = stated or Stated()
    if name not in SOURCES:
        raise SurveyError(f"unknown source {name!r}: {did_you_mean(name, SOURCES)}")
    source = SOURCES[name]
    if source.file == "none" and file is not None:
        raise SurveyError(f"source {name!r} reads no file: leave --file out")
    if source.file == "required" and file is None:
        raise SurveyError(f"source {name!r} needs --file: {source.summary}")
    stated.check(name, source.states)
    from pluralllm_app.survey.sources.damaged_texts import refuse_damaged, refuse_hidden

    survey = source.read(file, seed, stated)
    if not source.damaged:
        refuse_damaged(survey, str(file or name))
    refuse_hidden(survey, str(file or name))
    return survey
