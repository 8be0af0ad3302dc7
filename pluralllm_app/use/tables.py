"""A table of one group's answers, or of questions, in any of the forms that `prepare` reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pluralllm_app.errors import AnswersError
from pluralllm_app.survey.site import Site
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import AMOUNTS, TableReader
from pluralllm_app.survey.sources.table_rows import row_numbers
from pluralllm_app.use.given import Given, GivenAnswers, from_records
from pluralllm_app.use.questions import Question

QUESTION = ("question", "question_id")
STATED = ("encoding", "decimal")  # what may be stated of a table
Row = tuple[str, dict[str, object]]  # its place, and its cells by column


def read_file(file: Path, stated: Stated) -> GivenAnswers:
    """Read a table with the columns question or question_id, option, and share or count.

    Args:
        file: the table. A column `new` may say that a question is none of the survey's.
        stated: its encoding and decimal sign, where it does not say them itself.

    Raises:
        SurveyError: it cannot be read, or a number may be read in two ways.
        AnswersError: a column is missing, it has several groups, or a row is incomplete.
    """
    stated.check("table", STATED)
    numbers = {
        "share": Numbers(file, "share", percents=True, stated=stated.sign),
        "count": Numbers(file, "count", thousands=True, stated=stated.sign),
    }
    columns = (*QUESTION, *AMOUNTS, "group", "new")
    reader = TableReader(file, ("option",), columns, encoding=stated.encoding, of_several=True)
    rows: list[Row] = []
    read: list[dict[str, np.ndarray]] = []
    unit = ""
    for frame in reader:
        units = [name for name in AMOUNTS if name in frame.columns]
        if len(units) != 1 or not {*QUESTION} & {*frame.columns}:
            raise AnswersError(
                f"{file} needs the columns question or question_id, option, and one of share and "
                f"count; found: {', '.join(reader.names)}"
            )
        unit = units[0]
        read.append(numbers[unit].read(frame[unit], row_numbers(frame.index)))
        rows += _rows(file, frame)
    groups = sorted({str(cells["group"]) for _, cells in rows if cells.get("group")})
    if len(groups) > 1:
        raise AnswersError(
            f"{file} has answers of {len(groups)} groups ({', '.join(groups[:3])} ...): keep the "
            "rows of one"
        )
    sign = numbers[unit].decimal()
    amounts = np.concatenate([batch[sign] for batch in read])
    kept = [
        (place, {**cells, unit: float(amount)})
        for (place, cells), amount in zip(rows, amounts, strict=True)
        if any(cells.values()) or amount == amount
    ]
    if mixed := numbers[unit].mixed():
        raise AnswersError(mixed)
    found = from_records(kept)
    found.percent = numbers[unit].percent is not None
    found.notes += [*reader.notes, *numbers[unit].notes()]
    return found


def read_site(path: Path) -> GivenAnswers:
    """Read the answers of the group of a site.

    Raises:
        SurveyError: it is no site, or is damaged.
    """
    site = Site.open(path)
    preferences = site.survey.preferences(site.group)
    texts = site.survey.questions()
    people = preferences.respondents
    given = [
        Given(
            Question(texts.texts[number], texts.options[number], texts.ids[number]),
            shares.tolist(),
            f"question {texts.ids[number]!r}",
            None if people is None or np.isnan(people[place]) else float(people[place]),
        )
        for place, (number, shares) in enumerate(
            zip(
                preferences.questions.tolist(),
                np.split(preferences.shares, preferences.starts[1:]),
                strict=True,
            )
        )
    ]
    return GivenAnswers(given, "share")


def read_questions(
    file: Path, stated: Stated, cost: str | None = None
) -> tuple[list[Question], dict[Question, float]]:
    """Read a table of questions: columns question (or question_id), and option with a row for each.

    A question without an option is one of the survey.

    Args:
        file: the table.
        stated: its encoding and decimal sign, where it does not say them itself.
        cost: the column of what each question costs, if there is one.

    Returns:
        The questions, and what they cost.

    Raises:
        SurveyError: it cannot be read.
        AnswersError: it has no column of these, names no question, or has two costs for one.
    """
    stated.check("table", STATED)
    required = (cost,) if cost else ()
    optional = (*QUESTION, "option")
    reader = TableReader(file, required, optional, encoding=stated.encoding, of_several=True)
    numbers = Numbers(file, cost or "", stated=stated.sign)
    options: dict[tuple[str, str], list[str]] = {}
    rows: list[tuple[str, tuple[str, str]]] = []
    read: list[dict[str, np.ndarray]] = []
    for frame in reader:
        if not {*QUESTION} & {*frame.columns}:
            raise AnswersError(
                f"{file} needs a column question or question_id; found: {', '.join(reader.names)}"
            )
        if cost:
            read.append(numbers.read(frame[cost], row_numbers(frame.index)))
        for place, cells in _rows(file, frame):
            name = str(cells.get("question") or ""), str(cells.get("question_id") or "")
            rows.append((place, name))
            if any(name):
                options.setdefault(name, [])
                if cells.get("option"):
                    options[name].append(str(cells["option"]))
    if not options:
        raise AnswersError(f"{file} names no question: fill the column question or question_id")
    questions = {
        (text, id_): Question(text, found, id_ or None) for (text, id_), found in options.items()
    }
    costs: dict[Question, float] = {}
    if cost:
        sign = numbers.decimal()
        given = np.concatenate([batch[sign] for batch in read]).tolist()
        for (place, name), number in zip(rows, given, strict=True):
            if number == number and any(name):
                question = questions[name]
                if costs.setdefault(question, number) != number:
                    raise AnswersError(f"{place} gives its question a second cost: keep one")
    return list(questions.values()), costs


def _rows(file: Path, frame: pd.DataFrame) -> Iterator[Row]:
    columns = [name for name in (*QUESTION, "option", "group", "new") if name in frame.columns]
    for number, *cells in frame[columns].astype(object).itertuples():
        place = f"{file}: data row {number + 1}"
        yield place, dict(zip(columns, map(cell_text, cells), strict=True))
