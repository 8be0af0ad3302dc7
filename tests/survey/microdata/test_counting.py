"""Known numbers come back from every kind of file."""

from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.core.segments import segment_starts
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.sources.stated import Stated
from tests.support.people import MAP, WRITERS, expected, people

pytestmark = pytest.mark.slow

NAMES = {276.0: "Germany", 250.0: "France"}


def shares_of(content: SurveyContent, group: str, question: str) -> tuple[list[float], float]:
    """The shares of a group's answer to a question, and the respondents."""
    answers, questions = content.answers, content.questions
    starts = segment_starts(questions.counts[answers.question])
    number = questions.ids.index(question)
    mask = (answers.group == answers.groups.index(group)) & (answers.question == number)
    (at,) = np.flatnonzero(mask).tolist()
    assert answers.respondents is not None
    own = answers.shares[starts[at] : starts[at] + len(questions.options[number])]
    return own.tolist(), float(answers.respondents[at])


@pytest.fixture
def map_(tmp_path: Path) -> Path:
    file = tmp_path / "map.toml"
    file.write_text(MAP, "utf-8")
    return file


@pytest.mark.parametrize("kind", WRITERS)
def test_weighted_shares_come_back(kind: str, map_: Path, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    frame = people()
    write(frame, tmp_path / name)
    found = count_people(tmp_path / name, Stated(map=map_))
    labelled = kind in ("sav", "zsav", "dta")
    for country, label in NAMES.items():
        group = label if labelled else str(int(country))
        for question, codes in (("Q1", [1.0, 2.0, 3.0]), ("Q2", [1.0, 2.0, -1.0])):
            shares, respondents = shares_of(found.content, group, question)
            wanted, effective = expected(frame, country, question, codes)
            np.testing.assert_allclose(shares, wanted, rtol=0, atol=1e-12)
            assert respondents == pytest.approx(effective, rel=1e-12)
    assert found.content.questions.values == [[1.0, 2.0, 3.0], None]
    ledger = {(own.question, own.reason): own.people for own in found.left_out}
    assert ledger == {
        ("Q1", "don't know"): int((frame["Q1"] == 8).sum()),
        ("Q1", "refused"): int((frame["Q1"] == 9).sum()),
        ("Q2", "not asked"): int((frame["Q2"] == -4).sum() + frame["Q2"].isna().sum()),
    }
