"""A questionnaire: what all groups of a survey share, and nothing that is a group's."""

import re
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import read_questionnaire, write_questionnaire
from tests.conftest import make_survey
from tests.support.command import CliRunner


@pytest.fixture
def written(tiny_survey: PreparedSurvey, tmp_path: Path) -> PreparedSurvey:
    return write_questionnaire(tiny_survey, tmp_path / "questionnaire")


def test_it_has_the_questions_and_no_group(
    tiny_survey: PreparedSurvey, written: PreparedSurvey
) -> None:
    assert {file.name for file in written.path.rglob("*")} == {
        "survey.json",
        "questions.parquet",
        "embeddings.safetensors",
    }
    for file in written.path.iterdir():
        content = file.read_bytes()
        assert [group.name for group in tiny_survey.groups if group.name.encode() in content] == []
    assert written.fingerprint == tiny_survey.fingerprint
    ours = read_questionnaire(written.path, tiny_survey.fingerprint).question_set
    theirs = tiny_survey.all_questions()
    for name in ("embeddings", "questions", "first_rows", "options"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_that_of_another_survey_is_refused(written: PreparedSurvey, tmp_path: Path) -> None:
    other = make_survey(tmp_path / "other", dim=5)
    with pytest.raises(SurveyError, match=r"another survey than the groups' nodes have.*again"):
        read_questionnaire(written.path, other.fingerprint)


def test_one_that_was_changed_is_refused(written: PreparedSurvey) -> None:
    file = written.path / "embeddings.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SurveyError, match="is not as it was prepared"):
        read_questionnaire(written.path, written.fingerprint)


def test_the_command(tiny_survey: PreparedSurvey, tmp_path: Path) -> None:
    command = ["questionnaire", str(tiny_survey.path), "--out", str(tmp_path / "there")]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert done.exit_code == 0, done.exception
    count = len(tiny_survey.table)
    assert re.search(rf"there: {count} questions of .*, without answers", done.output)
    again = CliRunner().invoke(app, command)
    assert "is there already: name another directory" in str(again.exception)
