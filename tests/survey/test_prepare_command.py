import io
import re
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.command import prepare_command
from pluralllm_app.survey.hashing import HashingEmbedder
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey


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
    app = typer.Typer()
    app.command()(prepare_command)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert "synthetic" in result.output
    survey = PreparedSurvey.open(tmp_path / "demo")
    assert survey.synthetic
    assert survey.name == "Demo survey (synthetic)"
    assert [group.role for group in survey.groups].count("train") == 24
    assert sum(len(survey.preferences(group.name)) for group in survey.groups) > 3000


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
        ({"source": "demo", "metric": "cosine"}, "unknown metric"),
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
