import json
import shutil
from pathlib import Path

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.report.predictions import NoPredictionsError, Predictions, predict
from pluralllm_app.report.sources import read_sources
from pluralllm_app.survey.prepared import PreparedSurvey


def predictions(comparison: Path, survey: Path | None = None) -> Predictions:
    return predict(read_sources([comparison]), survey, lambda done, total: None)


@pytest.fixture
def copy(comparison: Path, tmp_path: Path) -> Path:
    shutil.copytree(comparison, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_federated_model_of_the_first_seed_predicts(comparison: Path) -> None:
    found = predictions(comparison)
    assert (found.method, found.run.seed, found.context) == ("Federated GPO", 0, 3)
    assert found.missing == []


def test_a_survey_that_is_not_where_it_was_is_asked_for(
    copy: Path, hostile_survey: PreparedSurvey, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(hostile_survey.path, moved)
    for file in copy.glob("cells/*/*/run.json"):
        file.write_text(file.read_text().replace(str(hostile_survey.path), "/nowhere"))
    with pytest.raises(NoPredictionsError, match=r"/nowhere does not exist.*--survey DIR"):
        predictions(copy)
    # A site has its own answers only.
    (moved / hostile_survey.group("Alder").file).unlink()
    found = predictions(copy, moved)
    assert found.missing == ["Alder"]
    assert len(found.content["groups"]) == 4


def test_answers_that_noise_hides_are_not_shown(copy: Path) -> None:
    noise = {"unit": "what one respondent answered", "epsilon": 1.0, "delta": 1e-6}
    for file in copy.glob("cells/*/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"noise": noise}))
    found = predictions(copy)
    assert {group["role"] for group in found.content["groups"]} == {"evaluation"}
    trained = [entry.group for entry in found.run.info.roster or [] if entry.role == "train"]
    assert found.withheld == sorted(trained) != []
    assert found.missing == []


def test_another_survey_is_refused(
    copy: Path, hostile_survey: PreparedSurvey, tiny_survey: PreparedSurvey
) -> None:
    with pytest.raises(UserError, match="is another survey than that of"):
        predictions(copy, tiny_survey.path)
    for file in copy.glob("cells/*/*/run.json"):
        text = file.read_text().replace(str(hostile_survey.path), str(tiny_survey.path))
        file.write_text(text)
    with pytest.raises(NoPredictionsError, match="is no longer the survey of the run"):
        predictions(copy)


def test_a_run_of_before_a_setting_was_added_predicts(copy: Path) -> None:
    for file in copy.glob("cells/*/*/run.json"):
        record = json.loads(file.read_text())
        del record["settings"]["resume-from"]
        file.write_text(json.dumps(record))
    assert predictions(copy).content["groups"]


def test_a_damaged_model_is_said(copy: Path) -> None:
    for model in copy.glob("cells/*/*/best/model.safetensors"):
        model.write_bytes(b"nonsense")
    with pytest.raises(NoPredictionsError, match="best is damaged"):
        predictions(copy)


def test_the_weights_of_another_model_are_said(copy: Path) -> None:
    for config in copy.glob("cells/*/*/best/config.json"):
        config.write_text(config.read_text().replace('"num_layers": 1', '"num_layers": 3'))
    with pytest.raises(NoPredictionsError, match=r"model\.safetensors holds other weights"):
        predictions(copy)
