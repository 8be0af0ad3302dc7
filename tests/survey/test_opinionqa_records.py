"""OpinionQA as JSON records."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.sources.opinionqa.content import GROUPS
from pluralllm_app.survey.sources.opinionqa.layouts import read_opinionqa
from tests.support.command import CliRunner

HOW_OFTEN: dict[str, Any] = {
    "question": "Question: How often?\nOptions: A. Often B. Seldom C. Never\nAnswer:",
    "options": ["Often", "Seldom", "Never", "Refused"],
    "attribute": "SEX_Female",
    "gold_distribution": [0.2, 0.2, 0.4, 0.2],
    "id": 7,
}


def read(tmp_path: Path, *changes: dict[str, Any]):
    """Read one record for each of `changes` to HOW_OFTEN."""
    file = tmp_path / "records.json"
    file.write_text(json.dumps([HOW_OFTEN | own for own in changes]), "utf-8")
    return read_opinionqa(file)


def test_refusals_are_left_out_and_the_rest_is_rescaled(tmp_path):
    survey = read(tmp_path, {}, {"attribute": "RACE_White", "gold_distribution": [0, 0.5, 0.5, 0]})
    assert survey.questions.texts == ["How often?"]
    assert survey.questions.options == [["Often", "Seldom", "Never"]]
    assert survey.questions.values == [[1, 2, 3]]
    assert survey.answers.groups == ["RACE_White", "SEX_Female"]
    order = np.argsort(survey.answers.group)
    shares = survey.answers.shares.reshape(2, 3)[order]
    np.testing.assert_allclose(shares, [[0, 0.5, 0.5], [0.25, 0.25, 0.5]])
    assert survey.answers.respondents is None
    assert survey.note.startswith("refusals left out of 2 answers")
    assert survey.names["SEX_Female"] == "People in the United States, sex: Female"


def test_options_with_and_without_a_refusal_are_one_question(tmp_path):
    whole = {"options": HOW_OFTEN["options"][:3], "gold_distribution": [0.1, 0.2, 0.7]}
    survey = read(tmp_path, {}, whole | {"attribute": "RACE_White"})
    assert len(survey.questions) == 1


def test_what_is_left_out_is_counted(tmp_path):
    survey = read(
        tmp_path,
        {},
        {"gold_distribution": [0.3, 0.2, 0.3, 0.2]},  # of another wave
        {"attribute": "RACE_Other"},
        {"options": ["Ye", "often", "Ye", "No"], "attribute": "RACE_White"},
        {"options": ["Yes", "Refused"], "gold_distribution": [1, 0]},
        {"question": "Question: Why?", "gold_distribution": [0.5, 0, 0.5, 0]},
        {"gold_distribution": [0, 0, 0, 1], "attribute": "RACE_White"},
    )
    assert {reason: count for reason, count in survey.dropped.items() if count} == {
        "answers of groups beyond the 22": 1,
        "answers with a single option or an option twice": 2,
        "answers of a group to a question that it has answered": 1,
        "answers that everybody refused": 1,
        "questions with an option that nobody picked": 1,
    }
    np.testing.assert_allclose(survey.answers.shares, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"question": None}, r"record 1 has no 'question' that is a str"),
        ({"question": "Question:\nOptions: A. B"}, r"record 1 has no question"),
        ({"options": "Often"}, r"no 'options' that is a list"),
        ({"options": ["Often", 2, "Never", "Refused"]}, r"an option that is no text"),
        ({"gold_distribution": [1.0]}, r"4 options but 1 shares"),
        ({"gold_distribution": ["1", 0, 0, 0]}, r"a share that is no number"),
        ({"gold_distribution": [0.5, 0.2, 0.1, 0.1]}, r"sum to 0.9 and not to 1"),
        ({"gold_distribution": [float("nan"), 0, 0, 1]}, r"sum to nan and not to 1"),
        ({"gold_distribution": [-0.5, 0.5, 1, 0]}, r"record 1: the shares must be at least 0"),
        ({"attribute": "SEX_Femle"}, r"no answer of any of its 22 groups"),
    ],
)
def test_malformed_records_are_refused(tmp_path, record, fault):
    with pytest.raises(SurveyError, match=fault):
        read(tmp_path, record)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.json", "{", "cannot read"),
        ("a.json", "{}", "no list of records"),
        ("a.json", "[]", "no list of records"),
        ("a.json", "[1]", "record 1 has no 'question'"),
        ("a.txt", "", "no layout of OpinionQA"),
        ("a.csv", "qkey", "does not end in _default_human.csv"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, fault):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(SurveyError, match=fault):
        read_opinionqa(file)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SurveyError, match="does not exist"):
        read_opinionqa(tmp_path / "none.json")


CODED = {"question": "Wie oft?", "options": ["Häufig", "Größtenteils", "Nie"]}
CODED |= {"gold_distribution": [0.2, 0.3, 0.5]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "cp1250"])
def test_any_encoding_of_records_is_read(tmp_path, encoding):
    records = tmp_path / "records.JSON.gz"
    text = json.dumps([HOW_OFTEN | CODED], ensure_ascii=False)
    records.write_bytes(gzip.compress(text.encode(encoding)))
    survey = read_opinionqa(records)
    assert survey.questions.options == [CODED["options"]]
    assert ("Windows-1252" in survey.note) == encoding.startswith("cp")


def test_an_encoding_that_is_not_clear_can_be_stated(tmp_path):
    records = tmp_path / "records.json"
    options = ["trèfle", "carreau", "coeur"]
    text = json.dumps([HOW_OFTEN | CODED | {"options": options}], ensure_ascii=False)
    records.write_bytes(text.encode("cp1252"))
    with pytest.raises(SurveyError, match=r"'trèfle' .*--encoding"):
        read_opinionqa(records)
    assert read_opinionqa(records, "cp1252").questions.options == [options]
    with pytest.raises(SurveyError, match=r"no text in its encoding .*--encoding"):
        read_opinionqa(records, "utf-8")
    with pytest.raises(SurveyError, match="unknown encoding 'cp12522'"):
        read_opinionqa(records, "cp12522")


def write_all_groups(file: Path) -> Path:
    """Forty questions, answered by all groups."""
    rng = np.random.default_rng(3)
    records = [
        HOW_OFTEN
        | {"question": f"Question: How often do you {number}?", "attribute": group}
        | {"gold_distribution": rng.dirichlet(np.ones(4)).tolist()}
        for group in GROUPS
        for number in range(40)
    ]
    file.write_text(json.dumps(records))
    return file


def prepare(out: Path, file: Path, *options: str):
    command = ["prepare", "opinionqa", "--file", str(file), "--out", str(out), *options]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    return PreparedSurvey.open(out), result.output


def test_the_command(tmp_path):
    file = write_all_groups(tmp_path / "records.json")
    survey, output = prepare(tmp_path / "one", file)
    assert survey.metric == "wasserstein"
    assert survey.preferences("SEX_Male").values[:3].tolist() == [1, 2, 3]
    roles = {group.name: group.role for group in survey.groups}
    assert sorted(roles) == sorted(GROUPS)
    assert list(roles.values()).count("evaluation") == 9
    assert (
        "Understood: 22 groups, 40 questions, 880 answers; refusals left out of 880 answers; the "
        "places of options serve as ordinal values; respondents not known; 22 groups described"
    ) in output
    other, _ = prepare(tmp_path / "two", file, "--seed", "1", "--metric", "jensen-shannon")
    assert other.metric == "jensen-shannon"
    assert {group.name: group.role for group in other.groups} != roles
    named = ["--train", "SEX_Male", "--train", "RACE_Asian", "--evaluation", "SEX_Female"]
    third, _ = prepare(tmp_path / "three", file, *named)
    assert [group.name for group in third.groups] == ["RACE_Asian", "SEX_Female", "SEX_Male"]
