"""How much one respondent can change a group's answers, as surveys and sites keep it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from pluralllm_app.survey.sources.table import read_table
from pluralllm_app.survey.storage import INFLUENCE

ROWS = "question_id,question,group,option,{}\n" + "".join(
    f"q,Tea?,North,{option},{{}}\n" for option in ("Yes", "No")
)


def test_it_is_kept_in_the_order_of_the_questions(content, write, tmp_path: Path) -> None:
    """North answers sea before tea, of which nobody answered more than one."""
    largest = np.array([0.1, 0.05, 0.2, 0.05, 0.05])
    answers = replace(content["answers"], influence=largest, most_answered={"North": 1})
    survey = write(answers=answers)
    north, south = survey.influence("North"), survey.influence("South")
    assert north.largest.tolist() == [0.2, 0.1]
    assert (north.questions, south.questions) == (1, 3)
    site = write_site(survey, "North", tmp_path / "site").survey
    assert site.influence("North").largest.tolist() == [0.2, 0.1]


def test_what_is_not_known_of_all_answers_is_not_known(content, write) -> None:
    largest = np.array([0.1, 0.05, np.nan, 0.05, 0.05])
    survey = write(answers=replace(content["answers"], influence=largest))
    assert survey.influence("North") is None
    assert survey.influence("South") is not None


@pytest.mark.parametrize(
    "said",
    [
        b"{",
        b'{"largest": [0.1], "questions": 1}',
        b'{"largest": [0.1, 0], "questions": 1}',
        b'{"largest": [0.1, 1.5], "questions": 1}',
        b'{"largest": [0.1, NaN], "questions": 1}',
        b'{"largest": [0.1, 0.1], "questions": 0}',
        b'{"largest": [0.1, 0.1], "questions": 1.5}',
        b'{"largest": [0.1, 0.1]}',
        b"[]",
    ],
)
def test_nonsense_is_refused(tiny, said: bytes) -> None:
    file = tiny.path / tiny.group("North").file
    pq.write_table(pq.read_table(file).replace_schema_metadata({INFLUENCE: said}), file)
    with pytest.raises(SurveyError, match="says wrongly how much a respondent can change"):
        PreparedSurvey.open(tiny.path).influence("North")


@pytest.mark.parametrize(
    ("column", "values", "known"),
    [
        ("count", (30, 10), [1 / 40]),  # people
        ("count", (30.5, 10.25), None),  # sums of weights
        ("share", (0.75, 0.25), None),  # of nobody knows how many
    ],
)
def test_a_table_says_it_where_it_counts_people(
    tmp_path: Path, column: str, values: tuple[float, float], known: list[float] | None
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(ROWS.format(column, *values))
    found = read_table(file).answers.influence
    assert (None if found is None else found.tolist()) == known
