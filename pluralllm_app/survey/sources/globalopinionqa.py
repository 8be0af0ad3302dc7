"""GlobalOpinionQA (Durmus et al. 2023, arXiv 2306.16388): Pew and World Values Survey by country.

The layout is that of Anthropic/llm_global_opinions: columns question, options (text of a list),
source, and selections, the text of a ``defaultdict(<class 'list'>, {country: [share, ...]})``.
Cells are parsed as literals and never evaluated.
"""

import ast
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.segments import Doubles, Ints, segment_sums
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent, question_id
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import TableReader

HUB_NAME = "Anthropic/llm_global_opinions"
COLUMNS = ("question", "selections", "options", "source")
SUM_TOLERANCE = 0.02  # the published shares sum to 0.997-1.003

# The groups of the PluralLLM paper.
TRAIN_GROUPS = (
    "Nigeria", "Egypt", "India (Current national sample)", "Germany", "United States", "Canada",
    "Argentina", "Australia",
)  # fmt: skip
EVALUATION_GROUPS = ("China", "Japan", "France", "Spain", "Brazil", "New Zealand")

_SELECTIONS = re.compile(r"defaultdict\(<class 'list'>, (\{.*\})\)", re.DOTALL)
_NON_FINITE = re.compile(r"(?<=[\[ ])-?(?:nan|inf)(?=[,\]])")


def read_global_opinions(file: Path | None = None, stated: Stated | None = None) -> SurveyContent:
    """Read the data set from the local copy `file`, or download it from the hub.

    Raises:
        SurveyError: there is no such file, a column is missing, a cell is malformed (the message
            has its row number), or the download fails.
    """
    place = HUB_NAME if file is None else str(file)
    if file is None:
        frame, notes = _download(), []
    else:
        reader = TableReader(file, COLUMNS, encoding=stated.encoding if stated else None)
        frame, notes = pd.concat(reader), reader.notes
    frame = frame.loc[:, list(COLUMNS)].fillna("").reset_index(drop=True)
    frame["row"] = np.arange(1, len(frame) + 1)
    dropped: dict[str, int] = {}

    def keep(kept: pd.Series, reason: str) -> pd.DataFrame:
        dropped[reason] = int((~kept).sum())
        return frame[kept]

    frame = keep(frame["question"].str.strip() != "", "questions without text")
    frame = keep(frame["selections"].str.strip() != "", "questions without answers")
    frame = frame.assign(options=_parse(place, frame, "options", _options))
    frame = keep(frame["options"].map(len) >= 2, "questions with fewer than two options")
    ids = map(question_id, frame["question"], frame["options"], frame["source"])
    frame = frame.assign(id=list(ids))
    frame = keep(~frame.duplicated("id"), "questions that repeat an earlier one")
    questions = Questions(
        ids=frame["id"].tolist(),
        texts=frame["question"].tolist(),
        options=frame["options"].tolist(),
        values=[None] * len(frame),
    )
    selections = _parse(place, frame, "selections", _shares_by_country)
    answers = _answers(place, frame["row"].to_numpy(), selections, questions, dropped)
    return SurveyContent(
        name="GlobalOpinionQA",
        source=f"{HUB_NAME} (Durmus et al. 2023; Pew Global Attitudes, World Values Survey)",
        licence="CC BY-NC-SA 4.0",
        questions=questions,
        answers=answers,
        dropped=dropped,
        train=TRAIN_GROUPS,
        evaluation=EVALUATION_GROUPS,
        note="; ".join(notes),
        # Without which sample it is: "India (Current national sample)".
        names={name: f"People in {name.partition(' (')[0]}" for name in answers.groups},
    )


def _download() -> pd.DataFrame:
    try:
        from datasets import load_dataset
    except ImportError:
        raise SurveyError(
            "downloading GlobalOpinionQA needs `datasets`: run pip install -e '.[hub]', "
            "or pass a local copy with --file"
        ) from None
    try:
        frame: pd.DataFrame = load_dataset(HUB_NAME, split="train").to_pandas()
        return frame
    # Whatever goes wrong on the way to the hub, the remedy is the same.
    except Exception as error:
        raise SurveyError(
            f"cannot download {HUB_NAME} ({error}): pass a local copy with --file"
        ) from error


def _parse(place: str, frame: pd.DataFrame, column: str, parse: Any) -> list[Any]:
    parsed = []
    for row, text in zip(frame["row"], frame[column], strict=True):
        try:
            parsed.append(parse(text))
        # OverflowError: a number out of range; the last two: text that is nested too deeply.
        except (OverflowError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise SurveyError(f"{place}: row {row} has a malformed {column!r} cell") from None
    return parsed


def _options(text: str) -> list[str]:
    """Parse the text of a list of texts and numbers; numbers become text.

    >>> _options("['Yes', 2.0]")
    ['Yes', '2']
    """
    if text.strip() == "":
        return []
    options = ast.literal_eval(text)
    if not isinstance(options, list) or {type(option) for option in options} - {str, int, float}:
        raise ValueError("not a list of texts and numbers")
    return [option if isinstance(option, str) else _number(option) for option in options]


def _number(option: int | float) -> str:
    return str(int(option)) if option == int(option) else repr(option)


def _shares_by_country(text: str) -> tuple[list[str], list[int], list[float]]:
    """Parse the text of a defaultdict of lists of numbers; nan and inf both become inf.

    Returns the countries (one may occur twice), the number of shares of each, and all shares.

    >>> _shares_by_country("defaultdict(<class 'list'>, {'Egypt': [0.25, 0.75], 'Peru': [nan]})")
    (['Egypt', 'Peru'], [2, 1], [0.25, 0.75, inf])
    """
    matched = _SELECTIONS.fullmatch(text.strip())
    if matched is None:
        raise ValueError("not a defaultdict of lists")
    literal = matched.group(1)
    if _NON_FINITE.search(literal):
        literal = _NON_FINITE.sub("1e999", literal)
    parsed = ast.parse(literal, mode="eval").body
    if not isinstance(parsed, ast.Dict) or None in parsed.keys:
        raise ValueError("not a dictionary")
    parts = [cast(list[ast.expr], parsed.keys), parsed.values]
    countries, shares = ast.literal_eval(
        ast.List([ast.List(part, ast.Load()) for part in parts], ast.Load())
    )
    if {*map(type, countries)} - {str} or {*map(type, shares)} - {list}:
        raise ValueError("not a dictionary of lists")
    flat = list(chain.from_iterable(shares))
    if {*map(type, flat)} - {int, float}:
        raise ValueError("not lists of numbers")
    return countries, list(map(len, shares)), list(map(float, flat))


def _answers(
    place: str,
    rows: Ints,
    selections: Sequence[tuple[list[str], list[int], list[float]]],
    questions: Questions,
    dropped: dict[str, int],
) -> Answers:
    """Flatten the selections and drop unusable answers, counted by reason in `dropped`."""
    countries = [names for names, _, _ in selections]
    lengths = np.array([length for _, lengths, _ in selections for length in lengths], np.int64)
    flat = np.array([share for _, _, shares in selections for share in shares], np.float64)
    question = np.repeat(np.arange(len(selections)), list(map(len, countries)))
    written, names = pd.factorize(pd.Series(list(chain.from_iterable(countries)), dtype=str))
    same, groups = pd.factorize(pd.Series(map(clean_text, names), dtype=str))
    group = same[written]
    _refuse(place, rows[question], (groups == "")[group], "no country")
    repeated = pd.Series(question * len(groups) + group).duplicated().to_numpy()
    _refuse(place, rows[question], repeated, "a country that their row has named before")
    finite = segment_sums(~np.isfinite(flat), lengths) == 0
    sums = segment_sums(np.where(np.isfinite(flat), flat, 0), lengths)
    _refuse(place, rows[question], segment_sums(flat < 0, lengths) > 0, "negative shares")
    kept = np.ones(len(lengths), bool)
    for reason, wrong in (
        ("answers without shares", lengths == 0),
        ("answers with shares that are not finite", ~finite),
        ("answers with shares that are all zero", sums == 0),
        (
            "answers with another number of shares than options",
            lengths != questions.counts[question],
        ),
    ):
        dropped[reason] = int((kept & wrong).sum())
        kept &= ~wrong
    unit = np.abs(sums - 1) <= SUM_TOLERANCE
    _refuse(place, rows[question], kept & ~unit, "shares that do not sum to 1")
    shares: Doubles = flat[np.repeat(kept, lengths)] / np.repeat(sums[kept], lengths[kept])
    return Answers(list(groups), group[kept], question[kept], shares)


def _refuse(place: str, rows: Ints, wrong: np.ndarray, fault: str) -> None:
    if wrong.any():
        raise SurveyError(
            f"{place}: {int(wrong.sum())} answer(s) have {fault}, the first in row {rows[wrong][0]}"
        )
