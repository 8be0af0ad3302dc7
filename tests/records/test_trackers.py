"""Trackers for real: what they wrote is read back with their own tools. None needs a network."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.errors import MissingPartError
from pluralllm_app.experiments.runs import run_centralized
from pluralllm_app.records.schema import Failure
from pluralllm_app.records.trackers import check_tracker, round_values
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.runs import make_entry, make_evaluation

Config = dict[str, Scalar]


def run(config: Config, tracker: str) -> tuple[Path, list[dict[str, Any]]]:
    """Train with a tracker; returns the run directory and the lines of rounds.jsonl."""
    config |= {"tracker": tracker}
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.path("survey"))
    run_centralized(survey, settings, config, "equal-steps")
    out = settings.path("out")
    return out, [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


def test_values_of_a_round() -> None:
    failure = Failure(group="Alder", phase="train", reason="away")
    entry = replace(make_entry(1, None, -1.0), failures=[failure])
    trained = {"seconds": 9.0, "failures": 1, "train/loss": -1.0}
    assert round_values(entry) == trained
    values = round_values(replace(entry, evaluation=make_evaluation(0.25)))
    assert values == trained | {
        **{f"evaluation groups/{key}": 0.25 for key in ("mean", "pooled", "worst")},
        **{f"evaluation groups/{key}": 0.0 for key in ("gap", "cov")},
        "evaluation groups/fi": 1.0,
        "alignment/of Dogwood": 0.25,
    }


def test_tensorboard(config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, rounds = run(config, "tensorboard")
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    means = {event.step: event.value for event in events.Scalars("evaluation groups/mean")}
    expected = {
        entry["round"]: pytest.approx(entry["evaluation"]["roles"]["evaluation"]["mean"])
        for entry in rounds
    }
    assert means == expected
    assert "alignment/of Élan 中_.." in events.Tags()["scalars"]


@pytest.mark.slow
def test_mlflow(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out, rounds = run(config, "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(out / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("pluralllm")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["rounds"] == "2"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [point.value for point in history] == [
        pytest.approx(entry["train"]["loss"]) for entry in rounds[1:]
    ]


@pytest.mark.slow
def test_wandb_offline(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out, _ = run(config, "wandb")
    (log,) = out.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20  # another process writes it
    while b"evaluation groups/mean" not in log.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named_with_the_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pluralllm_app.core.parts.find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=rf"pip install 'pluralllm-app\[{name}\]'"):
        check_tracker(name)
    check_tracker("none")


class Broken:
    """A tracker whose server is gone."""

    def __init__(self, fails_at: str, path: Path) -> None:
        self.fails_at, self.path = fails_at, path

    def log(self, round_number: int, values: Any) -> None:
        if self.fails_at == "log":
            raise ConnectionError("gone")

    def finish(self, *, completed: bool) -> None:
        # The command ends the run's processes as soon as run.json has an outcome.
        assert json.loads((self.path / "run.json").read_text())["status"] == "running"
        raise ConnectionError("gone")


@pytest.mark.parametrize("fails_at", ["log", "finish"])
def test_a_tracker_that_fails_does_not_cost_the_run(
    config: Config, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    path = Path(str(config["out"]))
    monkeypatch.setattr(
        "pluralllm_app.records.recording.open_tracker", lambda *arguments: Broken(fails_at, path)
    )
    out, rounds = run(config, "none")
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["tracker_error"]) == ("completed", "ConnectionError: gone")
    assert len(rounds) == 3


def test_trackers_get_no_paths(config: Config) -> None:
    out, _ = run(config, "tensorboard")
    (events,) = (out / "tensorboard").glob("events*")
    assert b"evaluation-seed" in events.read_bytes()
    assert str(config["survey"]).encode() not in events.read_bytes()
