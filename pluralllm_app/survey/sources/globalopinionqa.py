"""GlobalOpinionQA (Durmus et al. 2023, arXiv 2306.16388): Pew and World Values Survey by country.

The layout is that of Anthropic/llm_global_opinions: columns question, options (text of a list),
source, and selections, the text of a ``defaultdict(<class 'list'>, {country: [share, ...]})``. In
copies, options and selections may be lists and mappings, or texts as `literals` reads them.
"""

from collections.abc import Callable, Hashable, Sequence, Sized
from itertools import chain
from math import inf, isfinite
from pathlib import Path
from textwrap import shorten
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.parts import need
from pluralllm_app.core.segments import Doubles, Ints, segment_sums
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent, question_id
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.literals import Pairs, parse
from pluralllm_app.survey.sources.share_sums import judge_sums
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import TableReader

HUB_NAME = "Anthropic/llm_global_opinions"
COLUMNS = ("question", "selections", "options", "source")
FORMS = {
    "options": "a list such as ['Yes', 'No']",
    "selections": "a mapping such as {'Peru': [0.25, 0.75]}",
}

# The groups of the PluralLLM paper.
TRAIN_GROUPS = (
    "Nigeria", "Egypt", "India (Current national sample)", "Germany", "United States", "Canada",
    "Argentina", "Australia",
)  # fmt: skip
EVALUATION_GROUPS = ("China", "Japan", "France", "Spain", "Brazil", "New Zealand")


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
    frame = frame.loc[:, list(COLUMNS)].astype(object).reset_index(drop=True)
    frame["row"] = np.arange(1, len(frame) + 1)
    for column in ("question", "source"):
        frame[column] = _cells(place, frame, column, _text)
    empty = frame[["selections", "options"]].map(_is_empty)
    blank = (frame["question"] == "") & (frame["source"] == "") & empty.all(axis=1)
    if blank.any():
        notes.append(f"{many(int(blank.sum()), 'blank row')} left out")
        frame, empty = frame[~blank], empty[~blank]
    dropped: dict[str, int] = {}

    def keep(kept: pd.Series, reason: str) -> pd.DataFrame:
        dropped[reason] = int((~kept).sum())
        return frame[kept]

    frame = keep(frame["question"].str.strip() != "", "questions without text")
    frame = keep(~empty["selections"][frame.index], "questions without answers")
    frame = frame.assign(options=_cells(place, frame, "options", _options))
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
    selections = _cells(place, frame, "selections", _shares_by_country)
    answers = _answers(place, frame["row"].to_numpy(), selections, questions, dropped, notes)
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
    need("hub", "downloading GlobalOpinionQA, which a local copy given with --file spares,")
    from datasets import load_dataset

    try:
        frame: pd.DataFrame = load_dataset(HUB_NAME, split="train").to_pandas()
        return frame
    # Whatever goes wrong on the way to the hub, the remedy is the same.
    except Exception as error:
        from pluralllm_app.survey.hub import reason

        raise SurveyError(
            f"cannot download {HUB_NAME} ({reason(error)}): pass a local copy with --file"
        ) from error


def _cells(place: str, frame: pd.DataFrame, column: str, read: Callable[[Any], Any]) -> list[Any]:
    """Read each cell of a column."""
    cells = []
    for row, cell in zip(frame["row"], frame[column], strict=True):
        try:
            cells.append(read(cell))
        # OverflowError: a number out of range; the last two: text that is nested too deeply.
        except (OverflowError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise SurveyError(
                f"{place}: data row {row} has a malformed {column!r} cell, expected is "
                f"{FORMS.get(column, 'a text')}: {shorten(repr(cell)[:200], 100)}"
            ) from None
    return cells


def _text(cell: Any) -> str:
    """Return the text of a cell; the texts of the data set stay as they are, spaces included."""
    if not isinstance(cell, Hashable):
        raise ValueError("a list or mapping")
    return cell if isinstance(cell, str) else cell_text(cell)


def _is_empty(cell: Any) -> bool:
    """Whether a cell of a list or mapping has nothing in it."""
    if isinstance(cell, str):
        return not cell.strip()
    return len(cell) == 0 if isinstance(cell, Sized) else bool(pd.isna(cell))


def _plain(cell: Any) -> Any:
    """Return a cell with lists for arrays, `Pairs` for mappings, and what a text holds."""
    if isinstance(cell, str):
        return parse(cell)
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    return Pairs(cell.items()) if isinstance(cell, dict) else cell


def _options(cell: Any) -> list[str]:
    """Read a list of texts and numbers; numbers become text.

    >>> _options("['Yes', 2.0]")
    ['Yes', '2']
    """
    if _is_empty(cell):
        return []
    options = _plain(cell)
    if type(options) is not list or {*map(type, options)} - {str, int, float}:
        raise ValueError("not a list of texts and numbers")
    if not all(isinstance(option, str) or isfinite(option) for option in options):
        raise ValueError("not finite")
    return [option if isinstance(option, str) else cell_text(option) for option in options]


def _shares_by_country(cell: Any) -> tuple[list[str], list[int], list[float]]:
    """Read a mapping of lists of numbers; what is missing or not finite becomes inf.

    Returns the countries (one may occur twice), the number of shares of each, and all shares. A
    country without a list, as in a column of mappings that all have the same keys, is left out.

    >>> _shares_by_country("defaultdict(<class 'list'>, {'Egypt': [0.25, 0.75], 'Peru': [nan]})")
    (['Egypt', 'Peru'], [2, 1], [0.25, 0.75, inf])
    """
    pairs = _plain(cell)
    if not isinstance(pairs, Pairs):
        # A column of the type map comes as a list of pairs.
        pairs = Pairs((country, shares) for country, shares in pairs)
    countries = [country for country, shares in pairs if shares is not None]
    shares = [
        own.tolist() if isinstance(own, np.ndarray) else own for _, own in pairs if own is not None
    ]
    if {*map(type, countries)} - {str} or {*map(type, shares)} - {list}:
        raise ValueError("not a mapping of lists")
    flat = list(chain.from_iterable(shares))
    if {*map(type, flat)} - {int, float, NoneType}:
        raise ValueError("not lists of numbers")
    numbers = [inf if share is None or share != share else float(share) for share in flat]
    return countries, list(map(len, shares)), numbers


def _answers(
    place: str,
    rows: Ints,
    selections: Sequence[tuple[list[str], list[int], list[float]]],
    questions: Questions,
    dropped: dict[str, int],
    notes: list[str],
) -> Answers:
    """Flatten the selections and drop unusable answers, counted by reason in `dropped`.

    What is unusual about the shares is added to `notes`.
    """
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
    shares: Doubles = flat[np.repeat(kept, lengths)]
    if kept.any():
        found = judge_sums(shares, lengths[kept], lengths[kept].astype(float), percent=False)
        wrong = np.zeros(len(kept), bool)
        wrong[np.flatnonzero(kept)[found.wrong]] = True
        if wrong.any():
            fault = f"{found.kind} that do not sum to {found.whole} ({found.fault()})"
            _refuse(place, rows[question], wrong, fault)
        notes += found.notes()
    shares /= np.repeat(sums[kept], lengths[kept])
    return Answers(list(groups), group[kept], question[kept], shares)


def _refuse(place: str, rows: Ints, wrong: np.ndarray, fault: str) -> None:
    if wrong.any():
        raise SurveyError(
            f"{place}: {fault} in {many(int(wrong.sum()), 'answer')}, the first in data row "
            f"{rows[wrong][0]}"
        )
