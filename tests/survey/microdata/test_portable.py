"""SPSS's portable files: labels and missing values are right, or the file is refused."""

from pathlib import Path

import pandas as pd
import pyreadstat
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.files import open_microdata
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.sources.stated import Stated
from tests.survey.microdata.test_counting import shares_of

pytestmark = pytest.mark.slow

MAP = """
weight = "none"

[[question]]
id = "vote"
variable = "VOTE"
question = "Would you vote?"
options = [{ code = 1, option = "Yes" }, { code = 2, option = "No" }]
left-out = [{ code = 8, reason = "don't know" }, { code = 9, reason = "refused" }]
"""
LABELS = "D1/4/VOTE4/1/3/Yes2/2/No8/A/Don't know9/7/Refused"
MISSING = {"8 and 9, one by one": "88/89/", "8 to 9": "B8/9/", "8 and more": "A8/", "none": ""}


def portable(folder: Path, missing: str = "88/89/", labels: str = LABELS) -> Path:
    """A file of 8 people, with records that the library cannot write, in base 30.

    Records of missing values are between the name and the label of a variable: 8 has a value, B the
    ends of a range, A its lower end. That of the labels of values (D) is before the data (F).
    """
    file = folder / "vote.por"
    votes = [1.0, 1.0, 1.0, 2.0, 8.0, 8.0, 9.0, None]
    frame = pd.DataFrame({"VOTE": votes, "LAST": 1.0})
    pyreadstat.write_por(frame, str(file), column_labels={"VOTE": "Would you vote?", "LAST": "End"})
    text = "".join(line.ljust(80) for line in file.read_text("ascii").splitlines())
    text = text.replace("CF/Would", missing + "CF/Would").replace("C3/End", "C3/End" + labels)
    lines = [text[at : at + 80] for at in range(0, len(text), 80)]
    file.write_bytes("".join(f"{line}\r\n" for line in lines).encode("ascii"))
    return file


def stated(folder: Path, text: str = MAP) -> Stated:
    map_ = folder / "map.toml"
    map_.write_text(text, "utf-8")
    return Stated(map=map_, min_respondents=1)


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
def test_shares_and_labels_are_right_and_a_note_says_what_is_not_told(
    tmp_path: Path, missing: str
) -> None:
    file = portable(tmp_path, missing)
    found = count_people(file, stated(tmp_path), "Us")
    assert shares_of(found.content, "Us", "vote") == ([0.75, 0.25], 4.0)
    ledger = {own.reason: own.people for own in found.left_out}
    declared = {"no answer in the file": 4}
    told = {"don't know": 2, "refused": 1, "no answer in the file": 1}
    assert ledger == (declared if missing else told)
    assert "user-defined missing values of a .por file count as empty cells" in found.content.note
    draft = draft_map(open_microdata(file, Stated()), load_profile(None), tmp_path / "x").text
    for line in ('{ code = 1, option = "Yes" }', '{ code = 8, reason = "don\'t know" }'):
        assert line in draft


def test_an_option_that_may_be_among_the_empty_cells_is_refused(tmp_path: Path) -> None:
    moved = MAP.replace('reason = "don\'t know"', 'option = "No idea"').replace(
        '"No" }]\nleft-out = [{ code = 8, option = "No idea" }, ',
        '"No" }, { code = 8, option = "No idea" }]\nleft-out = [',
    )
    with pytest.raises(SurveyError, match=r"nobody has VOTE = 8 \('No idea'\).*save it as \.sav"):
        count_people(portable(tmp_path), stated(tmp_path, moved), "Us")
    told = count_people(portable(tmp_path, missing=""), stated(tmp_path, moved), "Us")
    assert shares_of(told.content, "Us", "vote")[0] == [3 / 6, 1 / 6, 2 / 6]


def test_a_set_in_which_an_empty_cell_says_no_is_refused(tmp_path: Path) -> None:
    chosen = """
weight = "none"

[[set]]
id = "media"
question = "Which of these?"
variables = ["VOTE", "LAST"]
chosen = [1]
not-chosen = [2, 8, 9, "missing"]
options = [{ variable = "VOTE", option = "A" }, { variable = "LAST", option = "B" }]
"""
    with pytest.raises(SurveyError, match=r"media:VOTE.* is of a set of variables, but a \.por"):
        count_people(portable(tmp_path), stated(tmp_path, chosen), "Us")
