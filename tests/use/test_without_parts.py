"""A trained predictor of factors is used where nothing optional is installed."""

import json
from pathlib import Path

import pytest

from pluralllm_app import Predictor
from tests.support.bare import COMMAND, bare
from tests.support.used import OFTEN, YES_NO, answers_of

pytestmark = pytest.mark.slow

PROGRAM = """
import json
from pluralllm_app import Predictor, Question
predictor = Predictor.from_pretrained(sys.argv[1])
group = predictor.group(json.loads(sys.argv[2]), description="North")
known = group.predict(sys.argv[3])
group.predict(Question("Should the station change soon?", ["Yes", "No"]))
print(json.dumps({option: float(share) for option, share in known[0].shares.items()}))
"""


def test_from_answers_to_predictions(predictor: Predictor, factors_run: Path) -> None:
    answers = answers_of("North", YES_NO[:2])
    told = bare(PROGRAM, str(factors_run), json.dumps(answers), OFTEN[0].text)
    assert told.returncode == 0, told.stderr
    (expected,) = predictor.group(answers, description="North").predict(OFTEN[0].text)
    assert json.loads(told.stdout) == pytest.approx(dict(expected.shares), abs=1e-12)


def test_commands(factors_run: Path) -> None:
    for arguments in (
        ("predict", str(factors_run), "--description", "North", "--question", YES_NO[0].text),
        ("ask", str(factors_run), "--count", "2"),
        ("card", str(factors_run)),
    ):
        told = bare(COMMAND, *arguments)
        assert told.returncode == 0, told.stderr
        assert told.stdout


def test_files_and_transformers_need_more(factors_run: Path, gpo_run: Path) -> None:
    run = str(factors_run)
    for arguments, said in {
        ("predict", run, "--answers", "a.csv"): "reading answers from a file needs pandas, ",
        ("predict", run, "--questions", "q.csv"): "reading questions from a file needs pandas, ",
        ("ask", run, "--of", "q.csv"): "reading questions from a file needs pandas, ",
        ("card", str(gpo_run)): "a predictor of kind 'gpo' needs torch, ",
    }.items():
        told = bare(COMMAND, *arguments)
        assert told.returncode == 1
        last = told.stderr.splitlines()[-1]
        assert last.startswith(f"Error: {said}")
        assert "pip install 'pluralllm-app[" in last
