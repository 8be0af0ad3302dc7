"""Anybody's survey: a long table with one row per question, group and option.

Columns: question_id, question, option, group, and either `share` (of the group that picks the
option, summing to 1 per question and group) or `count` (people who picked it); optionally `value`,
the option's ordinal value. A question's options are all those that occur with it, in order of first
appearance; an option without a row for a group was picked by nobody there.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pluralllm_app.errors import SurveyError
from pluralllm_app.segments import Doubles, segment_starts, segment_sums
from pluralllm_app.survey.raw import Answers, Questions, RawSurvey

TEXT_COLUMNS = ("question_id", "question", "option", "group")
SUM_TOLERANCE = 0.02  # published shares are rounded


def read_frame(file: Path) -> pd.DataFrame:
    """Read a .csv (all columns as text, nothing taken for missing), .parquet or .jsonl table.

    Raises:
        SurveyError: missing, of another kind, or damaged.
    """
    readers = {
        ".csv": lambda: pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8"),
        ".parquet": lambda: pd.read_parquet(file),
        ".jsonl": lambda: pd.read_json(file, lines=True, dtype=False),
    }
    if file.is_dir():
        raise SurveyError(f"{file} is a directory: give the table itself as --file")
    if file.suffix not in readers:
        raise SurveyError(f"{file} has the ending {file.suffix!r}: known are {', '.join(readers)}")
    if not file.is_file():
        raise SurveyError(f"{file} is not a file: check --file")
    try:
        return readers[file.suffix]()
    except (OSError, ValueError) as error:
        raise SurveyError(f"cannot read {file}: {str(error).strip()}") from error


def require_columns(file: Path | str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise SurveyError if a column is missing, with those found."""
    for column in columns:
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            raise SurveyError(f"{file} has no column {column!r}; found: {found}")


def read_table(file: Path) -> RawSurvey:
    """Read a long table into a survey.

    Raises:
        SurveyError: unreadable file, missing column, empty text, numbers that are no shares or
            counts, a repeated row, or a question with two texts.
    """
    frame = read_frame(file)
    require_columns(file, frame, TEXT_COLUMNS)
    if frame.empty:
        raise SurveyError(f"{file} has no rows")
    if ("share" in frame.columns) == ("count" in frame.columns):
        found = ", ".join(map(str, frame.columns))
        raise SurveyError(f"{file} needs one column of 'share' and 'count'; found: {found}")
    counted = "count" in frame.columns
    texts = frame.loc[:, list(TEXT_COLUMNS)].fillna("").astype(str)
    for column in TEXT_COLUMNS:
        _refuse_rows(file, texts[column].str.strip() == "", f"have no {column}")
    amount = _numbers(file, frame, "count" if counted else "share")
    _refuse_rows(file, pd.Series(amount < 0), "have a negative share or count")
    repeated = texts.duplicated(["question_id", "group", "option"])
    _refuse_rows(file, repeated, "repeat a question_id, group and option")

    by_question = texts.groupby("question_id", sort=False)
    _refuse_rows(
        file,
        texts["question"] != by_question["question"].transform("first"),
        "give a question_id another question text than before",
    )
    questions, question, position = _questions(file, frame, texts)
    group, groups = pd.factorize(texts["group"])
    cells, answer = np.unique(group * len(questions) + question, return_inverse=True)
    options = questions.counts[cells % len(questions)]
    flat = np.zeros(int(options.sum()))
    flat[segment_starts(options)[answer] + position] = amount
    totals = segment_sums(flat, options)
    answers = Answers(
        groups=list(groups),
        group=cells // len(questions),
        question=cells % len(questions),
        shares=flat / np.repeat(np.where(totals > 0, totals, 1), options),
        respondents=np.rint(totals).astype(np.int64) if counted else None,
    )
    asked = totals > 0
    if not counted:
        _refuse_sums(file, totals, answers, questions)
    survey = RawSurvey(
        name=file.stem,
        source=f"table {file.name}",
        licence="not stated",
        questions=questions,
        answers=answers.select(np.flatnonzero(asked), questions),
        dropped={"answers of a group that counts nobody": int((~asked).sum())},
    )
    return survey.keep_questions(questions.counts >= 2, "questions with fewer than two options")


def _numbers(file: Path, frame: pd.DataFrame, column: str) -> Doubles:
    numbers: Doubles = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
    _refuse_rows(file, pd.Series(~np.isfinite(numbers)), f"have no finite number as {column}")
    return numbers


def _refuse_rows(file: Path, wrong: pd.Series, fault: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if len(rows):
        raise SurveyError(f"{file}: {len(rows)} row(s) {fault}, the first is row {rows[0] + 1}")


def _refuse_sums(file: Path, sums: Doubles, answers: Answers, questions: Questions) -> None:
    wrong = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(wrong):
        group = answers.groups[answers.group[wrong[0]]]
        question = questions.ids[answers.question[wrong[0]]]
        raise SurveyError(
            f"{file}: the shares of {len(wrong)} answer(s) do not sum to 1, the first is question "
            f"{question!r}, group {group!r}: mend them, or give a column 'count' instead"
        )


def _questions(
    file: Path, frame: pd.DataFrame, texts: pd.DataFrame
) -> tuple[Questions, np.ndarray, np.ndarray]:
    """Return the questions and, for each row, its question's index and its option's position."""
    question, ids = pd.factorize(texts["question_id"])
    rows = texts.assign(index=question, value=_values(file, frame))
    options = rows.drop_duplicates(["index", "option"]).sort_values("index", kind="stable")
    options["position"] = options.groupby("index").cumcount()
    key = ["index", "option"]
    placed = rows.merge(options[[*key, "position", "value"]], on=key, how="left")
    same = (placed["value_x"] == placed["value_y"]) | (
        placed["value_x"].isna() & placed["value_y"].isna()
    )
    _refuse_rows(file, ~same, "give an option another ordinal value than before")
    grouped = options.groupby("index")
    values = [None if column.isna().all() else column.tolist() for _, column in grouped["value"]]
    questions = Questions(
        ids=list(ids),
        texts=list(rows.drop_duplicates("index")["question"]),
        options=[column.tolist() for _, column in grouped["option"]],
        values=values,
    )
    return questions, question, placed["position"].to_numpy()


def _values(file: Path, frame: pd.DataFrame) -> pd.Series:
    """Return each row's ordinal value, NaN where there is none."""
    if "value" not in frame.columns:
        return pd.Series(np.nan, index=frame.index)
    values = pd.to_numeric(frame["value"], errors="coerce")
    stated = frame["value"].notna() & (frame["value"].astype(str).str.strip() != "")
    _refuse_rows(file, stated & ~np.isfinite(values), "have a value that is no finite number")
    return values
