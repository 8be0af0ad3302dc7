"""The forms in which a user can give a group's answers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pluralllm_app.core.parts import need
from pluralllm_app.errors import AnswersError
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.use.given import Given, GivenAnswers, Numbers, from_records
from pluralllm_app.use.questions import Question, named

Answers = Mapping[Any, Numbers] | Iterable[Mapping[str, Any]] | str | Path
NOTHING = Stated()


def read_given(answers: Answers | None, stated: Stated = NOTHING) -> GivenAnswers:
    """Read answers in any form.

    Args:
        answers: numbers by question, each by option or in the order of the options; records with
            the keys question (or question_id), option, and share or count, also as a DataFrame;
            or the path of a table with these columns, or of a group's site.
        stated: encoding and decimal sign of a table, where it does not say them itself.

    Raises:
        AnswersError: it is none of these, a record is incomplete, or something is stated that is no
            table.
        SurveyError: a table cannot be read.
        MissingPartError: it is a path, and what reads files is not installed.
    """
    if isinstance(answers, str | Path):
        need("survey", "reading answers from a file")
        # Reading tables takes pandas, which is slow to import.
        from pluralllm_app.use.tables import read_file, read_site

        path = Path(answers).expanduser()
        if not path.is_dir():
            return read_file(path, stated)
        _refuse(stated, f"{path} is a site")
        return read_site(path)
    _refuse(stated, "no table was given")
    if answers is None:
        return GivenAnswers([])
    if isinstance(answers, Mapping):
        given = [
            Given(
                question,
                _by_label(numbers),
                _place(question),
                may_be_new=isinstance(question, Question),
            )
            for question, numbers in answers.items()
        ]
        return GivenAnswers(given)
    answers = _records_of(answers)
    if isinstance(answers, Iterable):
        return from_records(
            (f"record {number}", record) for number, record in enumerate(answers, 1)
        )
    raise AnswersError(
        f"answers are given as {type(answers).__name__}: give a dict of questions, records with "
        "question, option and share, or the path of a table"
    )


def _refuse(stated: Stated, why: str) -> None:
    if stated != NOTHING:
        raise AnswersError(f"an encoding or decimal sign is of a table, and {why}: leave it out")


def _place(question: str | Question) -> str:
    return named(question if isinstance(question, Question) else Question(str(question), ()))


def _by_label(numbers: Any) -> Numbers:
    """A Series of pandas by its labels: `value_counts` sorts by frequency."""
    if _library(numbers) == "pandas":
        return dict(numbers.items())
    found: Numbers = numbers
    return found


def _records_of(frame: Any) -> Any:
    """The rows of a DataFrame of pandas or polars; anything else as it is."""
    if _library(frame) == "pandas":
        return frame.to_dict("records")
    return frame.to_dicts() if _library(frame) == "polars" else frame


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]
