"""Published shares, compared with those that were counted: has the file been read as it is meant?

A table with the columns question_id or question, option, share and perhaps group.
It may have some of the questions and some of their options. A published number may differ from the
counted one by its rounding: half a unit of the last digit that any number of the table has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralllm_app.core.segments import segment_starts
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import TableReader
from pluralllm_app.survey.sources.table_rows import row_numbers

COLUMNS = ("option", "share")
MAY_HAVE = ("question_id", "question", "group")
MOST_DIGITS = 6
_SLACK = 1e-9


@dataclass(frozen=True)
class Topline:
    """A published share."""

    place: str  # for messages
    group: str
    question: str  # its id or text
    option: str
    share: float  # from 0 to 1


def check_toplines(content: SurveyContent, file: Path, stated: Stated) -> str:
    """Compare what was counted with what was published.

    Args:
        content: one or several groups; a table without groups is of a single one.
        file: the table.
        stated: its encoding and decimal sign.

    Returns:
        A line on how many were compared, and the largest difference.

    Raises:
        SurveyError: a share differs by more than rounding, the table has something that was not
            counted, or it cannot be read.
    """
    published, unit = _read(file, stated, content.answers.groups)
    counted = _shares(content)
    differences = []
    for own in published:
        options = counted.get((own.group, own.question))
        if options is None:
            raise SurveyError(
                f"{own.place}: no answers of {own.group!r} to question {own.question!r} were "
                "counted"
            )
        if own.option not in options:
            raise SurveyError(
                f"{own.place}: question {own.question!r} has no option {own.option!r}: "
                f"{did_you_mean(own.option, options)}"
            )
        differences.append(options[own.option] - own.share)
    wrong = [at for at, own in enumerate(differences) if abs(own) > unit / 2 + _SLACK]
    if wrong:
        shown = [
            f"{own.group}, {own.question}, {own.option!r}: {own.share:.1%} published, "
            f"{own.share + differences[at]:.2%} counted"
            for at in wrong[:5]
            for own in [published[at]]
        ]
        more = f"\n... and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""
        raise SurveyError(
            f"{len(wrong):,} of {len(published):,} shares differ from {file} by more than "
            f"rounding:\n"
            + "\n".join(shown)
            + more
            + "\nCheck the weight, the groups, and whether the published shares have don't know "
            "and the like among them"
        )
    most = max(map(abs, differences))
    return (
        f"{len(published):,} published shares agree, the largest difference is "
        f"{100 * most:.2f} percentage points"
    )


def _shares(content: SurveyContent) -> dict[tuple[str, str], dict[str, float]]:
    answers, questions = content.answers, content.questions
    starts = segment_starts(questions.counts[answers.question])
    found = {}
    for group, number, start in zip(answers.group, answers.question, starts, strict=True):
        options = questions.options[number]
        shares = answers.shares[start : start + len(options)].tolist()
        own = dict(zip(options, shares, strict=True))
        for key in (questions.texts[number], questions.ids[number]):
            found[answers.groups[group], key] = own
    return found


def _read(file: Path, stated: Stated, groups: Sequence[str]) -> tuple[list[Topline], float]:
    """Return the rows of the table, and the unit of the last digit of their shares."""
    numbers = Numbers(file, "share", percents=True, stated=stated.sign)
    cells, reads = [], []
    for frame in TableReader(file, COLUMNS, MAY_HAVE, (), stated.encoding, of_several=True):
        asked = frame.get("question_id", frame.get("question"))
        if asked is None:
            raise SurveyError(f"{file} has no column 'question_id', and no 'question' either")
        reads.append(numbers.read(frame["share"], row_numbers(frame.index)))
        own = frame.get("group", frame["option"].map(lambda _: ""))
        cells += list(zip(frame.index, asked, frame["option"], own, strict=True))
    sign = numbers.decimal()
    shares = np.concatenate([own[sign] for own in reads])
    whole = 100.0 if numbers.percent is not None or (shares > 1).any() else 1.0
    rows = []
    for (row, question, option, group), share in zip(cells, shares.tolist(), strict=True):
        place = f"{file}: data row {row + 1}"
        if not 0 <= share <= whole:
            raise SurveyError(f"{place} has no share from 0 to {whole:g}")
        name = cell_text(group)
        if not name and len(groups) > 1:
            raise SurveyError(f"{place} has no group, and there are {len(groups)}: add a column")
        rows.append(
            Topline(place, name or groups[0], cell_text(question), cell_text(option), share / whole)
        )
    digits = 2 if whole == 1 else 0
    while digits < MOST_DIGITS and (np.abs(shares * 10**digits % 1 - 0.5) < 0.5 - 1e-6).any():
        digits += 1
    return rows, 10.0**-digits / whole
