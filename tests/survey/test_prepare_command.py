import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pluralllm_app.cli.main import app
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.embedders.registry import advice
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.sources.globalopinionqa import EVALUATION_GROUPS, TRAIN_GROUPS
from pluralllm_app.survey.sources.registry import SOURCES
from pluralllm_app.survey.sources.stated import Stated
from tests.support.command import CliRunner


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        (f"q{q}", f"Question {q}?", option, group, 1 + q)
        for group in ("North", "South", "East", "West")
        for q in range(3 if group == "West" else 5)
        for option in ("Yes", "No")
    ]
    columns = ["question_id", "question", "option", "group", "count"]
    file = tmp_path / "mine.csv"
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
    return file


def test_demo_end_to_end(tmp_path):
    result = CliRunner().invoke(app, ["prepare", "demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert "synthetic" in result.output
    survey = PreparedSurvey.open(tmp_path / "demo")
    assert survey.synthetic
    assert survey.name == "Demo survey (synthetic)"
    assert [group.role for group in survey.groups].count("train") == 24
    assert sum(len(survey.preferences(group.name)) for group in survey.groups) > 3000


def opinions(*, original: bool) -> pd.DataFrame:
    """32 made-up questions to the paper's countries and one more, as GlobalOpinionQA has them.

    `original`: as published, where shares are rounded, some options are numbers, and some
    questions and answers lack something; else as in copies that were cleaned.
    """
    rows = []
    for number in range(32):
        shares = {
            country: [0.25, 0.752] if original else [0.25, 0.75]
            for country in (*TRAIN_GROUPS, *EVALUATION_GROUPS, "Peru")
        }
        options = [1.0, 2.0] if original and number == 7 else ["Yes", "No"]
        rows.append((f"Is it {number}?", shares, options, "GAS" if number % 2 else "WVS"))
    if original:
        rows[0][1].update({"China": [], "Egypt": [0.0, 0.0]})
        rows[1][1].update({"Japan": [float("nan"), 1.0], "Spain": [0.2, 0.3, 0.5], "France": []})
        rows += [("", *rows[0][1:]), rows[2], ("One option?", rows[2][1], ["Yes"], "GAS")]
        rows.append(("No answers?", None, ["Yes", "No"], "GAS"))
    frame = pd.DataFrame(rows, columns=["question", "selections", "options", "source"])
    frame["selections"] = [
        "" if own is None else f"defaultdict(<class 'list'>, {own})" for own in frame["selections"]
    ]
    return frame


@pytest.mark.parametrize(
    ("original", "left_out", "egypt"),
    [
        (False, {"other groups, not chosen": 1, "answers of these groups": 32}, 32),
        (
            True,
            {
                "questions without text": 1,
                "questions without answers": 1,
                "questions with fewer than two options": 1,
                "questions that repeat an earlier one": 1,
                "answers without shares": 2,
                "answers with shares that are not finite": 1,
                "answers with shares that are all zero": 1,
                "answers with another number of shares than options": 1,
                "other groups, not chosen": 1,
                "answers of these groups": 32,
            },
            31,
        ),
    ],
)
def test_the_papers_countries_from_a_local_file(tmp_path, original, left_out, egypt):
    file, out = tmp_path / "opinions.csv", tmp_path / "out"
    opinions(original=original).to_csv(file, index=False)
    command = ["prepare", "globalopinionqa", "--file", str(file), "--out", str(out)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    counted = re.findall(r"left out: (.*?) *│ *(\d+)", result.output)
    assert {reason: int(count) for reason, count in counted} == left_out
    survey = PreparedSurvey.open(out)
    roles = {group.name: group.role for group in survey.groups}
    assert roles == dict.fromkeys(TRAIN_GROUPS, "train") | dict.fromkeys(
        EVALUATION_GROUPS, "evaluation"
    )
    assert len(survey.questions()) == 32
    assert (survey.questions().options[7] == ["1", "2"]) == original
    shares = survey.preferences("Egypt").shares
    assert len(shares) == 2 * egypt
    first = 0.25 / 1.002 if original else 0.25
    np.testing.assert_allclose(shares[:2], [first, 1 - first], rtol=1e-6)


def test_demo_is_the_same_twice(tmp_path, quiet):
    fingerprints = {
        prepare("demo", tmp_path / name, console=quiet).fingerprint for name in ("one", "two")
    }
    assert len(fingerprints) == 1


def test_wasserstein_keeps_ordinal_questions(tmp_path, quiet):
    survey = prepare("demo", tmp_path / "demo", metric="wasserstein", console=quiet)
    assert None not in survey.questions().values
    values = survey.preferences(survey.groups[0].name).values
    assert values.min() == 1
    assert values.max() == 5


def test_only_questions_of_chosen_groups_are_kept(tmp_path, table, quiet):
    survey = prepare(
        "table", tmp_path / "out", file=table, train=["West"], min_questions=1, console=quiet
    )
    assert survey.questions().ids == ["q0", "q1", "q2"]


def test_table_is_split_by_default(tmp_path, table, quiet):
    survey = prepare("table", tmp_path / "out", file=table, min_questions=4, console=quiet)
    roles = {group.name: group.role for group in survey.groups}
    assert set(roles) == {"North", "South", "East"}
    assert sorted(roles.values()) == ["evaluation", "train", "train"]


def test_groups_left_out_are_counted(tmp_path, table):
    console = Console(record=True, quiet=False, width=100, file=io.StringIO())
    arguments = {"file": table, "min_questions": 4, "console": console}
    prepare("table", tmp_path / "one", **arguments)
    prepare("table", tmp_path / "two", train=["North"], **arguments)
    one, two = console.export_text().split("Survey written")[:2]
    assert re.search(r"left out: groups that answer fewer than 4 questions *│ *1", one)
    assert "not chosen" not in one
    assert re.search(r"left out: groups that answer fewer than 4 questions *│ *1", two)
    assert re.search(r"left out: other groups, not chosen *│ *2", two)
    assert re.search(r"left out: answers of these groups *│ *13", two)


def test_advice_fits_the_fault(tmp_path, table, quiet):
    frame = pd.read_csv(table)
    out = {"out": tmp_path / "out", "file": tmp_path / "mine.csv", "console": quiet}
    frame[frame.option == "Yes"].to_csv(out["file"], index=False)
    with pytest.raises(SurveyError, match=r"no question .* with fewer than two options$"):
        prepare("table", **out)
    frame.to_csv(out["file"], index=False)
    with pytest.raises(
        SurveyError, match=r"no question .* ordinal values, which wasserstein needs"
    ):
        prepare("table", **out, metric="wasserstein")
    frame[frame.group == "North"].to_csv(out["file"], index=False)
    with pytest.raises(SurveyError, match="a single group"):
        prepare("table", **out, min_questions=1)
    prepare("table", **out, min_questions=1, train=["  North"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"source": "demoo"}, "did you mean 'demo'"),
        ({"source": "demo", "file": Path("x.csv")}, "reads no file"),
        ({"source": "table"}, "needs --file"),
        ({"source": "table", "file": Path("x.SAV")}, "`pluralllm prepare microdata` reads it"),
        ({"source": "demo", "metric": "cosine"}, "unknown metric"),
        ({"source": "demo", "stated": Stated(licence="CC0")}, "'demo' takes no --licence"),
        (
            {"source": "globalopinionqa", "file": Path("x.csv"), "stated": Stated(decimal="comma")},
            "'globalopinionqa' takes no --decimal",
        ),
        (
            {"source": "table", "file": Path("x.csv"), "stated": Stated(decimal="coma")},
            "did you mean 'comma'",
        ),
        (
            {"source": "table", "file": Path(__file__), "stated": Stated(encoding="nix")},
            "has the ending '.py'",
        ),
        ({"source": "demo", "embedder": "./none"}, "not a directory"),
        ({"source": "demo", "train": ["Briwane"]}, "did you mean 'Brivane'"),
        ({"source": "demo", "min_questions": 1000}, "questions, fewer than 1000"),
        ({"source": "demo", "train": ["Brivane"], "evaluation_fraction": 0.5}, "not both"),
        ({"source": "demo", "evaluation_fraction": 0.0}, "between 0 and 1"),
        ({"source": "demo", "out": Path("/proc/survey")}, "cannot write"),
    ],
)
def test_everything_is_refused_before_embedding(tmp_path, quiet, monkeypatch, arguments, fault):
    def no_embedding(*_):
        raise AssertionError("embedding started")

    monkeypatch.setattr(HashingEmbedder, "embed", no_embedding)
    with pytest.raises(SurveyError, match=fault):
        prepare(**{"out": tmp_path / "fresh" / "out", "console": quiet, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_what_a_table_does_not_say_is_stated_by_options(tmp_path, table):
    frame = pd.read_csv(table)
    frame["count"] = [f"1.{count:03}" for count in frame["count"]]
    frame.replace("North", "Köln").to_csv(table, index=False, encoding="cp1250")
    command = ["prepare", "table", "--file", str(table), "--out", str(tmp_path / "out")]
    command += ["--min-questions", "1", "--evaluation", "South"]
    refused = CliRunner().invoke(app, command)
    assert "may be 1.001 or 1001" in str(refused.exception)
    stated = ["--decimal", "comma", "--encoding", "cp1250", "--licence", "CC0", "--source", "Us"]
    result = CliRunner().invoke(app, [*command, *stated], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "; Windows-1250; dots between thousands; " in result.output
    survey = PreparedSurvey.open(tmp_path / "out")
    assert (survey.source, survey.licence) == ("Us", "CC0")
    assert survey.preferences("Köln").respondents.tolist() == [2002, 2004, 2006, 2008, 2010]
    unknown = CliRunner().invoke(app, [*command, "--encoding", "nix", "--overwrite"])
    assert "unknown encoding 'nix'" in str(unknown.exception)


def test_hashing_of_ones_own_survey_is_advised_against_with_the_command(tmp_path, table):
    out = tmp_path / "my survey"
    command = ["prepare", "table", "--file", str(table), "--out", str(out), "--min-questions", "1"]
    env = {"COLUMNS": "100"}
    said = CliRunner().invoke(app, command, env=env).output.splitlines()[-1]
    assert said.startswith("The questions were embedded by hashing, which knows words by their")
    assert said.endswith(
        f"prepare table --file {table} --out '{out}' --min-questions 1 --embedder "
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2 --overwrite"
    )
    demo = ["prepare", "demo", "--out", str(tmp_path / "demo")]
    assert "by hashing" not in CliRunner().invoke(app, demo, env=env).output
    assert advice("sha256:00", False, "prepare again") == ""


def test_help_and_errors_list_the_sources_of_the_registry(tmp_path, quiet):
    shown = CliRunner().invoke(app, ["prepare", "--help"], env={"COLUMNS": "200"}).output
    for name, source in SOURCES.items():
        assert f"{name}: {source.summary}." in shown
    known = ", ".join(map(repr, sorted(SOURCES)))
    with pytest.raises(SurveyError, match=f"known are {known}"):
        prepare("xyz", tmp_path / "out", console=quiet)


def test_a_group_that_nobody_counts_is_named_where_too_few_are_left(tmp_path, table, quiet):
    frame = pd.read_csv(table)
    frame.loc[frame["group"] != "South", "count"] = 0
    frame.to_csv(table, index=False)
    with pytest.raises(SurveyError, match="nothing to train on") as error:
        prepare("table", tmp_path / "made", file=table, evaluation=["South"], console=quiet)
    (note,) = error.value.__notes__
    assert "13 answers of a group that counts nobody" in note
