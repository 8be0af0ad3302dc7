"""A survey of one's own: a table with one row per question, group and option.

Its columns are question_id, question, option, group, and either `share` (the part of the group that
picks the option; shares sum to 1 per question and group, or to 100 as percentages) or `count` (how
many people picked it). A column `value` may give the option's ordinal value, and a column
`description` may say who the group is. The options of a question are all those that occur with it,
in order of first appearance; if a group has no row for an option, nobody in it picked that option.
`cell_texts` says which texts are the same, and `numbers` how numbers may be written.

A table is read in batches, of which 16 bytes are kept for each row. Memory therefore depends on the
number of rows, shares and different texts, but not on how often a text repeats: at most about 60
bytes per row, plus one batch.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pluralllm_app.core.segments import Doubles, segment_starts, segment_sums
from pluralllm_app.core.wording import many
from pluralllm_app.errors import ColumnError, SurveyError
from pluralllm_app.survey.content import Answers, SurveyContent
from pluralllm_app.survey.sources.base_options import find_base
from pluralllm_app.survey.sources.share_sums import TOLERANCE, judge_sums
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import bare_name
from pluralllm_app.survey.sources.table_rows import PAIR, Rows
from pluralllm_app.survey.sources.total_options import find_total
from pluralllm_app.survey.sources.wide_tables import WideReader, is_wide


def read_table(file: Path, stated: Stated | None = None) -> SurveyContent:
    """Read a long table into a survey, without the questions that have a single option.

    Raises:
        SurveyError: see `read_long_table`.
    """
    survey = read_long_table(file, stated)
    several = survey.questions.counts >= 2
    return survey.keep_questions(several, "questions with fewer than two options")


def read_long_table(
    file: Path, stated: Stated | None = None, of_group: str | None = None
) -> SurveyContent:
    """Read a long table, or a wide one as if it were long, with the options that occur in it.

    Args:
        file: the table.
        stated: what its user knows of it.
        of_group: whose answers it holds, where it has no column of that name.

    Raises:
        SurveyError: the file cannot be read or may be read in two ways, a column is missing, a text
            is empty or damaged, a number is not a share or count, a row is repeated, a question has
            two texts, an option is a total, or shares have a wrong sum. The message has the first
            such row and cell.
    """
    stated = stated or Stated()
    try:
        rows = Rows(file, stated, of_group)
    except ColumnError as error:
        if not is_wide(error.names):
            raise
        rows = Rows(file, stated, of_group, WideReader(file, stated))
    questions, position = rows.questions()
    # A cell is a group with a question that it answers, in the order of groups, then questions.
    cells = np.unique(np.concatenate([np.unique(rows.cells(batch)) for batch in rows.batches]))
    group, question = np.divmod(cells, PAIR)
    options = questions.counts[question]
    starts = segment_starts(options)
    flat = np.full(int(options.sum()), np.nan)
    first_rows = np.full(len(cells), -1)
    for batch in rows.batches:
        cell = np.searchsorted(cells, rows.cells(batch))
        at = starts[cell] + position[batch.choice]
        repeated = ~np.isnan(flat[at]) | pd.Series(at).duplicated().to_numpy()
        rows.faults.note("repeat a question_id, group and option", repeated, batch.index)
        flat[at] = batch.amounts[rows.decimal]
        new = np.flatnonzero(first_rows[cell] < 0)[::-1]  # backwards: the first row shall stay
        if len(new):
            first_rows[cell[new]] = batch.rows[new]
    rows.faults.refuse()
    groups, descriptions, notes = rows.groups.texts, rows.descriptions(), rows.notes()
    counted, percent = rows.counted, rows.percent
    del rows, batch, cells, cell, at, repeated, starts, new
    given = segment_sums(~np.isnan(flat), options)
    flat[np.isnan(flat)] = 0
    if not counted:
        sums = judge_sums(flat, options, given, percent)
        if len(sums.wrong):
            first = sums.wrong[0]
            place = f"question {questions.ids[question[first]]!r}, group {groups[group[first]]!r}"
            raise SurveyError(
                f"{file}: the {sums.kind} of {many(len(sums.wrong), 'answer')} do not sum to "
                f"{sums.whole}, the first is {place}, from data row {first_rows[first] + 1} on: "
                + sums.fault()
            )
        notes += sums.notes()
    totals = segment_sums(flat, options)
    respondents = None
    if counted:
        total = find_total(questions, question, flat, totals)
        if total is not None and not total.sure:
            notes.append(
                f"the option {total.option!r} is the sum of the others wherever it occurs (if it "
                "is a total, remove its rows)"
            )
        elif total is not None:
            answer = total.answer
            id_, name = questions.ids[question[answer]], groups[group[answer]]
            raise SurveyError(
                f"{file}: the option {total.option!r} is the sum of the other options wherever it "
                f"occurs, first in question {id_!r}, group {name!r}, from data row "
                f"{first_rows[answer] + 1} on: it is no option but a total, remove its rows"
            )
        if base := find_base(questions, question, flat, totals):
            option, answer = base
            id_, name = questions.ids[question[answer]], groups[group[answer]]
            raise SurveyError(
                f"{file}: without the option {option!r} every answer sums to 1 or 100, first of "
                f"question {id_!r}, group {name!r}, from data row {first_rows[answer] + 1} on: it "
                "is no option but the number of people asked, or a mean; remove its rows"
            )
        doubts = _look_of_shares(flat, totals)
        if not doubts and (flat == np.rint(flat)).all():
            respondents = totals.clip(1)
        elif not doubts:
            doubts = ["counts that are no whole numbers, so sums of weights and not of people"]
        notes += doubts
    if counted and not totals.any():
        raise SurveyError(f"{file}: all counts are 0, so that nobody has answered: mend them")
    flat /= np.repeat(np.where(totals > 0, totals, 1), options)
    answers = Answers(
        groups=groups,
        group=group,
        question=question,
        shares=flat,
        respondents=respondents,
        influence=None if respondents is None else 1 / respondents,
    )
    asked = totals > 0
    return SurveyContent(
        name=Path(bare_name(file)).stem,
        source=stated.source or f"table {file.name}",
        licence=stated.licence or "not stated",
        questions=questions,
        answers=answers.select(np.flatnonzero(asked), questions),
        dropped={"answers of a group that counts nobody": int((~asked).sum())},
        descriptions=descriptions,
        note="; ".join(notes),
    )


def _look_of_shares(counts: Doubles, totals: Doubles) -> list[str]:
    """Say so if counts sum to 100, or fractions to 1, in every answer, as shares do."""
    for whole in (1, 100):
        fractions = whole == 100 or bool((counts != np.rint(counts)).any())
        if fractions and (np.abs(totals - whole) <= TOLERANCE * whole).all():
            return [
                f"counts that sum to about {whole} in every answer (if they are shares or "
                "percentages, call the column 'share')"
            ]
    return []
