"""OpinionQA as its official repository has it, once its notebook process_results.ipynb was run.

    distributions/<survey>_default_human.csv    qkey, attribute, group, D_H, R_H
    distributions/<survey>_default_model.csv    qkey, question_raw, ordinal, ordinal_refs, ...
    human_resp/<survey>/info.csv                key, question, references, option_ordinal
    human_resp/<wave>/responses.csv             one person a row: answers, attributes, a weight

D_H holds a group's weighted shares in the order of the options, without those who refused, and R_H
their share. The texts are in info.csv or else in the table of a model: as many references as there
are ordinal values are options, the rest are refusals. A question whose ordinal values are all the
same has no order.

Only responses.csv tells how many people were asked, and it is not always there. As the shares are
weighted, what counts is Kish's effective number, (sum of weights)^2 / (sum of squared weights): the
shares vary as much as those of an unweighted sample of that size.
"""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.opinionqa.content import GROUPS, Answer, Question, survey_of
from pluralllm_app.survey.sources.table_files import TableReader

ENDING = "_default_human.csv"
_ATTRIBUTES = sorted({group.partition("_")[0] for group in GROUPS})
_WAVE = re.compile(r"_W(\d+)$")  # at the end of a question's key


def read_tables(path: Path, encoding: str | None = None) -> SurveyContent:
    """Read a file *_default_human.csv, or all of these in a directory and those below it.

    A question that is in several files is read from the first of them.

    Args:
        path: of the file or directory.
        encoding: of those files that are not in Unicode, if the user states it.

    Raises:
        SurveyError: a file or a column is missing, a cell is malformed (the message has the file
            and the question), or a question has another number of shares than options.
    """
    questions: dict[str, Question] = {}
    answers: list[Answer] = []
    refused: list[float] = []
    others = repeated = 0
    tables = _Tables(encoding)
    for file in _distributions(path):
        texts = _questions(file, tables)
        people = _People(file, tables)
        earlier = set(questions)
        frame = tables.read(file, ("qkey", "attribute", "group", "D_H", "R_H"))
        for key, attribute, value, shares, refusal in frame.itertuples(index=False):
            group = f"{attribute}_{value}"
            if group not in GROUPS:
                others += 1
                continue
            if key in earlier:
                repeated += 1
                continue
            place = f"{file}: question {key!r}"
            if key not in texts:
                raise SurveyError(f"{place} has no text: its info.csv does not have it")
            question = questions.setdefault(key, texts[key])
            numbers = _numbers(place, shares)
            if len(numbers) != len(question.options):
                raise SurveyError(
                    f"{place} has {len(numbers)} shares but {len(question.options)} options"
                )
            asked = people.effective(key, group, question.options)
            answers.append(Answer(place, group, key, numbers, asked))
            refused.append(float(pd.to_numeric(refusal, errors="coerce")))
    average = np.nanmean(refused) if np.isfinite(refused).any() else 0.0
    unordered = sum(question.values is None for question in questions.values())
    note = (
        f"refusals left out, {average:.1%} of a group's answers on average; "
        f"{unordered:,} questions without ordinal values"
    )
    return survey_of(
        questions,
        answers,
        {"answers of groups beyond the 22": others, "answers that an earlier file has": repeated},
        "; ".join([*tables.notes, note]),
    )


def _distributions(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.rglob(f"*{ENDING}"))
        if not files:
            raise SurveyError(
                f"{path} has no file that ends in {ENDING}: run the notebook "
                "process_results.ipynb of tatsu-lab/opinions_qa, which writes them"
            )
        return files
    if not path.name.endswith(ENDING):
        raise SurveyError(f"{path} does not end in {ENDING}, as the official data do")
    return [path]


def _human_responses(file: Path) -> Path | None:
    """Find the directory human_resp near a file of distributions."""
    places = [above / part for above in file.resolve().parents[1:4] for part in ("", "OpinionsQA")]
    return next((at for place in places if (at := place / "human_resp").is_dir()), None)


class _Tables:
    """Reads the .csv files, all as text."""

    def __init__(self, encoding: str | None) -> None:
        self._encoding = encoding
        self.notes: dict[str, None] = {}  # what was found out about them

    def read(
        self, file: Path, columns: Sequence[str], others: Sequence[str] | None = ()
    ) -> pd.DataFrame:
        """Return columns that must be there, and `others`, None: all."""
        reader = TableReader(file, columns, others, encoding=self._encoding, of_several=True)
        frame = pd.concat(reader, ignore_index=True)
        reader.refuse_twice()
        self.notes |= dict.fromkeys(reader.notes)
        return frame


def _questions(file: Path, tables: _Tables) -> dict[str, Question]:
    """Read the questions of a survey, by key."""
    survey = file.name.removesuffix(ENDING)
    humans = _human_responses(file)
    info = None if humans is None else humans / survey / "info.csv"
    model = file.with_name(f"{survey}_default_model.csv")
    found: dict[str, Question] = {}
    if info is not None and info.is_file():
        frame = tables.read(info, ("key", "question", "references", "option_ordinal"))
        for key, text, references, ordinal in frame.itertuples(index=False):
            place = f"{info}: question {key!r}"
            values = _list(place, ordinal)
            options = _list(place, references)[: len(values)]
            found[key] = _question(place, text, options, values)
    elif model.is_file():
        frame = tables.read(model, ("qkey", "question_raw", "ordinal_refs", "ordinal"))
        for key, text, options, ordinal in frame.drop_duplicates("qkey").itertuples(index=False):
            place = f"{model}: question {key!r}"
            found[key] = _question(place, text, _list(place, options), _list(place, ordinal))
    else:
        wanted = f"human_resp/{survey}/info.csv"
        raise SurveyError(f"{file} lacks the texts: put {wanted} or {model.name} beside it")
    return found


def _question(place: str, text: str, options: list[Any], values: list[Any]) -> Question:
    if len(options) != len(values) or not all(type(value) in (int, float) for value in values):
        raise SurveyError(f"{place} needs one ordinal value for each option")
    ordered = len(set(values)) > 1
    return Question(
        clean_text(text),
        [clean_text(str(option)) for option in options],
        [float(value) for value in values] if ordered else None,
    )


class _People:
    """The persons behind the shares, as far as their answers are there."""

    def __init__(self, file: Path, tables: _Tables) -> None:
        self._humans = _human_responses(file)
        self._tables = tables
        self._waves: dict[str, pd.DataFrame | None] = {}
        self._effective: dict[str, dict[str, float]] = {}

    def effective(self, key: str, group: str, options: Sequence[str]) -> float:
        """Return the effective number of people in a group who answered; NaN if unknown."""
        if key not in self._effective:
            self._effective[key] = self._count(key, options)
        return self._effective[key].get(group, float("nan"))

    def _count(self, key: str, options: Sequence[str]) -> dict[str, float]:
        wave = _WAVE.search(key)
        frame = self._wave(wave.group(1)) if wave else None
        if frame is None or key not in frame.columns:
            return {}
        given = frame[frame[key].map(clean_text).isin(options) & (frame["weight"] > 0)]
        weights = given["weight"]
        counts = {}
        for attribute in _ATTRIBUTES:
            if attribute in given.columns:
                sums = weights.groupby(given[attribute]).sum()
                squares = (weights**2).groupby(given[attribute]).sum()
                for value, number in (sums**2 / squares).items():
                    counts[f"{attribute}_{value}"] = max(float(number), 1.0)
        return counts

    def _wave(self, number: str) -> pd.DataFrame | None:
        if number not in self._waves:
            self._waves[number] = self._read(number)
        return self._waves[number]

    def _read(self, number: str) -> pd.DataFrame | None:
        if self._humans is None:
            return None
        file = self._humans / f"American_Trends_Panel_W{number}" / "responses.csv"
        if not file.is_file():
            return None
        frame = self._tables.read(file, (f"WEIGHT_W{number}",), None)
        weight = pd.to_numeric(frame[f"WEIGHT_W{number}"], errors="coerce")
        return frame.assign(weight=weight)


def _list(place: str, cell: str) -> list[Any]:
    try:
        parsed = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        parsed = None
    if not isinstance(parsed, list):
        raise SurveyError(f"{place} has a cell that is no list: {cell[:60]!r}")
    return parsed


def _numbers(place: str, cell: str) -> list[float]:
    """Parse numbers between brackets, separated by blanks or, as in some files, by commas.

    >>> _numbers("", "[0.25 0.75]")
    [0.25, 0.75]
    """
    text = cell.strip()
    try:
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError
        return [float(number) for number in text[1:-1].replace(",", " ").split()]
    except ValueError:
        raise SurveyError(f"{place} has a malformed 'D_H' cell: {text[:60]!r}") from None
