"""Where a predictor is read from, and what is refused there."""

import shutil
from pathlib import Path

import pytest

from pluralllm_app.errors import PredictorError, SurveyError
from pluralllm_app.survey.shared import TEXTS
from pluralllm_app.use.predictor import Predictor


def test_a_run_that_has_kept_nothing_is_told_so(factors_run: Path, tmp_path: Path) -> None:
    shutil.copy(factors_run / "run.json", tmp_path)
    with pytest.raises(PredictorError, match="completed before it kept a predictor"):
        Predictor.from_pretrained(tmp_path)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"completed"', '"running"'))
    with pytest.raises(PredictorError, match="has kept no predictor yet"):
        Predictor.from_pretrained(tmp_path)


def test_a_mistyped_path_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PredictorError, match="runs/frist is no directory"):
        Predictor.from_pretrained("runs/frist")


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (TEXTS, lambda text: text[:-20], "is damaged"),
        (TEXTS, lambda text: text.replace("harbour", "harbor"), "not as they were"),
        (
            "questionnaire.json",
            lambda text: text.replace('format_version": 1', 'format_version": 2'),
            "install a newer",
        ),
        (TEXTS, lambda text: text.replace("jensen-shannon", "other"), "unknown metric"),
        ("training.json", lambda text: "{}", "training.json is damaged"),
    ],
)
def test_damaged_files_are_refused(
    factors_run: Path, tmp_path: Path, name: str, change: object, fault: str
) -> None:
    shutil.copytree(factors_run / "best", tmp_path / "best")
    file = tmp_path / "best" / name
    assert callable(change)
    file.write_text(change(file.read_text()))
    with pytest.raises((PredictorError, SurveyError), match=fault):
        Predictor.from_pretrained(tmp_path / "best")


def test_vectors_of_another_questionnaire_are_refused(factors_run: Path, tmp_path: Path) -> None:
    shutil.copytree(factors_run / "best", tmp_path / "best")
    file = tmp_path / "best" / "embeddings.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SurveyError, match="not as they were written"):
        Predictor.from_pretrained(tmp_path / "best")
    file.unlink()
    with pytest.raises(SurveyError, match=r"embeddings\.safetensors is missing"):
        Predictor.from_pretrained(tmp_path / "best")
