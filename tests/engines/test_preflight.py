"""A survey that is too small is refused with the command that works for it."""

import re
import shlex
from pathlib import Path

import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.engines.preflight import fitting_settings, preflight
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import parse_overrides, read_defaults
from tests.conftest import ROOT, make_survey
from tests.support.command import CliRunner


def refused(*arguments: str | Path) -> list[str]:
    """The words of the command that is said to work where one is refused."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, UserError)
    [note] = done.exception.__notes__
    found = re.fullmatch(r"For this survey, this works: (.+)", note)
    assert found, note
    return shlex.split(found[1])


@pytest.mark.parametrize("questions", [6, 12, 18])
@pytest.mark.parametrize("train", [["Alder"], ["Alder", "Birch", "Dill"]])
def test_the_settings_that_are_said_to_work_do(
    tmp_path: Path, questions: int, train: list[str]
) -> None:
    survey = make_survey(tmp_path / "small", questions=questions, train=train)
    command = ["run", "--survey", survey.path, "-c", "seed=3"]
    words = refused(*command)
    assert words[1 : len(command) + 1] == list(map(str, command))
    given = parse_overrides([words[place + 1] for place, word in enumerate(words) if word == "-c"])
    assert given["seed"] == 3
    paths = {"survey": str(survey.path)}
    preflight(Settings.from_config(read_defaults(ROOT / "pyproject.toml") | given | paths))


def test_a_survey_that_can_never_be_trained_on_has_no_such_command(tmp_path: Path) -> None:
    settings = Settings.from_config(read_defaults(ROOT / "pyproject.toml"))
    assert fitting_settings([("North", "train", 2, 1)], settings) == {}
    assert fitting_settings([("North", "evaluation", 40, 40)], settings) == {}


def table(tmp_path: Path) -> Path:
    """Four groups that answer 5, 5, 5 and 3 questions."""
    rows = ["question_id,question,option,group,count"]
    rows += [
        f"q{number},Question {number}?,{option},{group},{2 + number}"
        for group in ("North", "South", "East", "West")
        for number in range(3 if group == "West" else 5)
        for option in ("Yes", "No")
    ]
    file = tmp_path / "small.csv"
    file.write_text("\n".join(rows))
    return file


@pytest.mark.parametrize(
    ("roles", "needed"),
    [
        ([], "5"),
        (["--evaluation", "South"], "5"),
        (["--evaluation", "West"], "3"),
        (["--train", "North", "--train", "West", "--evaluation", "East"], "3"),
        (["--evaluation-fraction", "0.4", "--min-questions", "6"], "5"),
    ],
)
def test_prepare_says_the_whole_command_that_works(
    tmp_path: Path, roles: list[str], needed: str
) -> None:
    out = tmp_path / "a b"
    words = refused("prepare", "table", "--file", table(tmp_path), "--out", out, *roles)
    assert words[-2:] == ["--min-questions", needed]
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    assert (out / "survey.json").exists()


def test_a_run_that_cannot_sum_securely_is_refused_before_it_starts(
    config: dict[str, Scalar],
) -> None:
    secure = config | {"privacy": "secure-sum"}
    preflight(Settings.from_config(secure))
    with pytest.raises(FederationError, match="Set train-groups-per-round = 0"):
        preflight(Settings.from_config(secure | {"train-groups-per-round": 2}))
