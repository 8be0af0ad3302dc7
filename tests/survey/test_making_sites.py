"""Each group makes its site from a questionnaire and its own file, as if one place had them all."""

import re
from pathlib import Path

import pytest
from click.testing import Result

from pluralllm_app.cli.main import app
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.command import CliRunner

HEADER = "question_id,question,option,group,count,value"
ROWS = [
    "q1,Do you drink tea?,Yes,North,70,",
    "q1,Do you drink tea?,No,North,30,",
    "q1,Do you drink tea?,Yes,South,20,",
    "q1,Do you drink tea?,No,South,60,",
    "q2,How is the bus?,Good,North,12,3",
    "q2,How is the bus?,Fair,North,13,2",
    "q2,How is the bus?,Bad,South,40,1",
    "q2,How is the bus?,Good,South,41,3",
    "q3,Do you like the sea?,Yes,South,5,",
    "q3,Do you like the sea?,No,South,6,",
]
QUESTIONS = [
    "question_id,question,option,value",
    "q1,Do you drink tea?,Yes,",
    "q1,Do you drink tea?,No,",
    "q2,How is the bus?,Good,3",
    "q2,How is the bus?,Fair,2",
    "q2,How is the bus?,Bad,1",
    "q3,Do you like the sea?,Yes,",
    "q3,Do you like the sea?,No,",
]


def call(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*map(str, words)])


def done(*words: str | Path) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.exception or result.output
    return " ".join(result.output.split())


def refused(*words: str | Path) -> str:
    result = call(*words)
    assert result.exit_code == 1, result.output
    return str(result.exception)


def table(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(rows) + "\n", "utf-8")
    return file


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    """A survey of all groups, as one place would prepare it."""
    file = table(tmp_path / "mine.csv", HEADER, *ROWS)
    groups = ("--train", "North", "--evaluation", "South", "--min-questions", "1")
    done("prepare", "table", "--file", file, "--out", tmp_path / "pooled", *groups)
    return tmp_path / "pooled"


@pytest.fixture
def questionnaire(pooled: Path, tmp_path: Path) -> Path:
    done("questionnaire", pooled, "--out", tmp_path / "questions")
    return tmp_path / "questions"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A questionnaire from a table of questions alone."""
    file = table(tmp_path / "q.csv", *QUESTIONS)
    done("questionnaire", file, "--out", tmp_path / "made")
    return tmp_path / "made"


def contents(directory: Path) -> dict[str, bytes]:
    files = (file for file in sorted(directory.rglob("*")) if file.is_file())
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


@pytest.mark.parametrize(("group", "role"), [("North", "train"), ("South", "evaluation")])
def test_a_site_made_from_a_file_is_that_cut_out_of_the_pooled_survey(
    pooled: Path, questionnaire: Path, tmp_path: Path, group: str, role: str
) -> None:
    own = table(tmp_path / "own.csv", HEADER, *(row for row in ROWS if f",{group}," in row))
    wanted = ("--group", group, "--file", own, "--role", role, "--out", tmp_path / "made")
    done("site", "create", questionnaire, *wanted)
    done("site", "create", pooled, "--group", group, "--out", tmp_path / "cut")
    assert contents(tmp_path / "made") == contents(tmp_path / "cut")
    done("site", "check", tmp_path / "made")


def test_a_file_of_one_group_needs_no_column_for_it(questionnaire: Path, tmp_path: Path) -> None:
    north = [row for row in ROWS if ",North," in row]
    named = table(tmp_path / "named.csv", HEADER, *north)
    bare = [row.replace(",North", "") for row in (HEADER.replace(",group", ",North"), *north)]
    own = table(tmp_path / "own.csv", *bare, ",,,,")
    for file in (named, own):
        out = ("--out", tmp_path / file.stem)
        done("site", "create", questionnaire, "--group", "North", "--file", file, *out)
    assert contents(tmp_path / "named") == contents(tmp_path / "own")
    pooled = refused("prepare", "table", "--file", own, "--out", tmp_path / "all")
    assert "own.csv has no column 'group'" in pooled


def test_a_site_names_no_other_group(questionnaire: Path, tmp_path: Path) -> None:
    own = table(tmp_path / "own.csv", HEADER, *(row for row in ROWS if "Bad" not in row))
    said = done(
        *("site", "create", questionnaire, "--group", "North", "--file", own),
        *("--out", tmp_path / "north"),
    )
    assert "2 of 3 questions answered" in said
    assert "answers of 1 other groups in the file left out" in said
    assert "counts as a share of 0, the first is 'q2' 'Bad'" in said
    assert [name for name, own in contents(tmp_path / "north").items() if b"South" in own] == []


def test_a_table_of_questions_gives_the_questionnaire_of_the_survey(
    made: Path, questionnaire: Path, tmp_path: Path
) -> None:
    # But for the order of options, which in a table of answers is that of their first appearance.
    survey, table_ = PreparedSurvey.open(questionnaire), PreparedSurvey.open(made)
    assert survey.questions().ids == table_.questions().ids == ["q1", "q2", "q3"]
    assert table_.questions().options[1] == ["Good", "Fair", "Bad"]
    assert table_.questions().values == [None, [3.0, 2.0, 1.0], None]
    assert survey.fingerprint == table_.fingerprint
    assert table_.groups == ()
    (tmp_path / "there").mkdir()
    file = table(tmp_path / "there" / "q.csv", *QUESTIONS)
    done("questionnaire", file, "--out", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made)


def test_a_table_of_answers_gives_its_questions(made: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "q.csv", HEADER, *ROWS)
    done("questionnaire", file, "--out", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("q9,Do you drink tea?,Yes,North,3,", "question 'q9' is called 'q1' there"),
        ("q22,Is it?,Yes,North,3,", "question 'q22' ('Is it?') is not in it: did you mean 'q2'"),
        ("q3,Do you like lakes?,Yes,North,3,", "'Do you like lakes?' here and 'Do you like the"),
        ("q2,How is the bus?,Godo,North,3,", "no option 'Godo' there: did you mean 'Good'?"),
        ("q2,How is the bus?,Bad,North,3,5", "value of 'Bad' is 5 here and 1 there"),
        ("q1,Do you drink tea?,Ja,NORTH,3,", "has both 'North' and 'NORTH' as group"),
    ],
)
def test_what_contradicts_the_questionnaire_is_refused(
    made: Path, tmp_path: Path, row: str, fault: str
) -> None:
    own = table(tmp_path / "own.csv", HEADER, *ROWS[:2], row)
    out = tmp_path / "out"
    said = refused("site", "create", made, "--group", "North", "--file", own, "--out", out)
    assert fault in said
    assert not out.exists()


def test_an_unknown_group_is_named(made: Path, tmp_path: Path) -> None:
    own = table(tmp_path / "own.csv", HEADER, *ROWS)
    wanted = ("--group", "Nroth", "--file", own, "--out", tmp_path / "out")
    assert "no group 'Nroth': did you mean 'North'" in refused("site", "create", made, *wanted)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["q1,Tea?,Yes,", "q1,Tea?,Yes,"], "data row 2 repeats option 'Yes'"),
        (["q1,Tea?,Yes,", "q1,Coffee?,No,"], "data row 2 gives question 'q1' another text"),
        (["q1,Tea?,Yes,1", ",Tea?,No,2"], "data row 2 has no question_id"),
        (["q1,Tea?,Yes,one", "q1,Tea?,No,2"], "data row 1 has a value that is no finite number"),
        (["q1,Tea?,Yes,1", "q1,Tea?,No,"], "question 'q1' needs one finite ordinal value per"),
        (["q1,Tea?,Yes,"], "question 'q1' has 1 option but needs 2"),
        (["q1,fÃ¼r?,Yes,", "q1,fÃ¼r?,No,"], "UTF-8 that was read as"),
        (["1,Tea?,Yes,", "1,Tea?,No,", "01,Bus?,Yes,", "01,Bus?,No,"], "both '1' and '01'"),
    ],
)
def test_faults_of_a_table_of_questions_are_named(
    tmp_path: Path, rows: list[str], fault: str
) -> None:
    file = table(tmp_path / "q.csv", QUESTIONS[0], *rows)
    assert fault in refused("questionnaire", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_german_numbers_and_blank_rows(tmp_path: Path) -> None:
    rows = ["question_id;question;option;value", "q1;Tee?;Ja;1,5", ";;;", "q1;Tee?;Nein;2"]
    file = table(tmp_path / "q.csv", *rows)
    said = done("questionnaire", file, "--out", tmp_path / "out", "--metric", "wasserstein")
    assert "1 question, 2 options; semicolons; 1 blank row left out" in said
    assert PreparedSurvey.open(tmp_path / "out").questions().values == [[1.5, 2.0]]


def test_wishes_that_do_not_fit_are_refused(pooled: Path, made: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "leave --embedder out" in refused("questionnaire", pooled, *out, "--embedder", "hashing")
    file = table(tmp_path / "q.csv", *QUESTIONS)
    lacking = refused("questionnaire", file, *out, "--metric", "wasserstein")
    assert "question 'q1' has no ordinal values" in lacking
    own = table(tmp_path / "own.csv", HEADER, *ROWS)
    north = ("site", "create", made, "--group", "North", *out)
    assert call(*north, "--role", "train").exit_code == 2
    assert call(*north, "--file", own, "--role", "other").exit_code == 2
    assert "no group 'North'" in refused(*north)  # a questionnaire has no answers


def test_a_local_model_has_to_be_named_to_describe_the_group(made: Path, tmp_path: Path) -> None:
    info = made / "survey.json"
    info.write_text(re.sub('"hashing"', '"sha256:0123456789abcdef"', info.read_text()))
    own = table(tmp_path / "own.csv", HEADER, *ROWS)
    north = ("site", "create", made, "--group", "North", "--file", own, "--out", tmp_path / "out")
    said = refused(*north)
    assert "pass --embedder with the directory" in said
    assert "Understood" not in said  # it is refused before the file is read
    assert "embedded by sha256:0123456789ab: pass" in refused(*north, "--embedder", "hashing")
    done(*north, "--descriptions", "none")
