"""How much one person can change a group's answers: known from microdata, and true."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.respondents import Grid
from pluralllm_app.survey.content import Answers, Influence
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.sources.stated import Stated
from tests.support.people import MAP, people
from tests.support.preferences import preference_set

OPTIONS = np.array([3, 3])  # of the questions Q1 and Q2


def counted(frame: pd.DataFrame, place: Path, weight: str | None = None) -> Answers:
    """The answers of France, the group 250, and of Germany, 276."""
    frame.to_csv(place / "people.csv", index=False)
    (place / "map.toml").write_text(MAP, "utf-8")
    stated = Stated(map=place / "map.toml", weight=weight, min_respondents=1)
    return count_people(place / "people.csv", stated).content.answers


def of_france(answers: Answers) -> tuple[PreferenceSet, Influence]:
    shares = answers.shares.reshape(-1, 3)
    own = np.flatnonzero(answers.group == answers.groups.index("250"))
    assert answers.influence is not None
    given = {int(answers.question[at]): shares[at].tolist() for at in own}
    influence = Influence(answers.influence[own], answers.most_answered["250"])
    return preference_set("France", given, OPTIONS), influence


def test_the_largest_weight_is_recorded_as_a_part_of_all(tmp_path: Path) -> None:
    """Three people of weights 1, 2 and 5; the third answers Q1 alone."""
    frame = pd.DataFrame({"COUNTRY": 250, "W": [1, 2, 5], "Q1": [1, 2, 3], "Q2": [1, 1, np.nan]})
    _, influence = of_france(counted(frame, tmp_path))
    assert influence.largest == pytest.approx([5 / 8, 2 / 3])
    assert influence.questions == 2
    _, alike = of_france(counted(frame, tmp_path, weight="none"))
    assert alike.largest == pytest.approx([1 / 3, 1 / 2])


def test_each_group_has_its_own_most_answered(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "COUNTRY": [250, 250, 276],
            "W": [1, 1, 1],
            "Q1": [1, 8, 2],
            "Q2": [np.nan, 2, 1],
        }
    )
    assert counted(frame, tmp_path).most_answered == {"250": 1, "276": 2}


def test_no_person_moves_answers_by_more_than_the_sensitivity(tmp_path: Path) -> None:
    """Each of some people answers the opposite of what he did, wherever he answered."""
    frame = people()
    before, influence = of_france(counted(frame, tmp_path))
    grid = Grid.of(influence, OPTIONS)
    heaviest = frame[frame["COUNTRY"] == 250]["W"].nlargest(8).index
    most = 0.0
    for row in heaviest:
        other = frame.copy()
        for variable, codes in (("Q1", (1.0, 3.0)), ("Q2", (1.0, 2.0))):
            if other.loc[row, variable] in (1.0, 2.0, 3.0, -1.0):
                other.loc[row, variable] = codes[int(frame.loc[row, variable] == codes[0])]
        after, same = of_france(counted(other, tmp_path))
        np.testing.assert_array_equal(same.largest, influence.largest)
        moved = grid.rounded(after) - grid.rounded(before)
        most = max(most, float(np.sqrt((moved.astype(float) ** 2).sum())))
    assert 0.5 * grid.sensitivity < most <= grid.sensitivity
