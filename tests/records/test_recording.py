"""A run while it is recorded: its lock, its observers, its best model and its checkpoints."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.predictors.base import Arrays, ContextPredictor
from pluralllm_app.predictors.saved import load_predictor
from pluralllm_app.predictors.uniform import Uniform
from pluralllm_app.records.lock import locked_run
from pluralllm_app.records.observers import BestModel, Checkpoints, Observer
from pluralllm_app.records.reader import RoundReader, read_rounds, read_run
from pluralllm_app.records.recording import Recording, recorded_run
from pluralllm_app.records.schema import RoundEntry, Status, encode_line
from pluralllm_app.records.writer import RunRecord
from pluralllm_app.scoring.results import EvaluationResult
from pluralllm_app.settings import Scalar
from tests.support.runs import SURVEY, make_entry, make_info, make_summary

Config = dict[str, Scalar]
GROUPS = [("Alder", "train", 9), ("Birch", "train", 9), ("Dogwood", "evaluation", 9)]


class Listener(Observer):
    """Notes what it is told, and what run.json said then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Any] = []

    def trained(self, round_number: int, predictor: Callable[[], ContextPredictor]) -> None:
        self.heard.append(("trained", round_number, predictor().kind))

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        self.heard.append(("recorded", entry.round, len(read_rounds(self.path, complete=False))))

    def finished(self, status: Status) -> None:
        info = read_run(self.path)
        self.heard.append(("finished", status, info.status if info else None))


def test_observers_hear_of_every_round_and_of_the_end_before_it_is_written(
    config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    listener = Listener(path)
    with recorded_run(path, "federated", config) as record:
        record.observers.append(listener)
        record.close_round(make_entry(0, 0.5), Uniform)
        record.trained(1, Uniform)
        record.close_round(make_entry(1, 0.6, 1.0), Uniform)
    assert listener.heard == [
        ("recorded", 0, 1),
        ("trained", 1, "uniform"),
        ("recorded", 1, 2),
        ("finished", "completed", "running"),
    ]
    info = read_run(path)
    assert info is not None
    assert (info.status, info.method) == ("completed", "federated")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no quorum"), "failed", "no quorum"),
        (ValueError("odd"), "failed", "ValueError: odd"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
    ],
)
def test_an_error_is_recorded_and_told(
    config: Config, tmp_path: Path, error: BaseException, status: str, said: str
) -> None:
    listener = Listener(tmp_path)

    def fail() -> None:
        with recorded_run(tmp_path, "federated", config) as record:
            record.observers.append(listener)
            raise error

    with pytest.raises(type(error)):
        fail()
    info = read_run(tmp_path)
    assert info is not None
    assert (info.status, info.error) == (status, said)
    assert listener.heard == [("finished", status, "running")]


def score(record: Recording, number: int, mean: float, **fields: Any) -> None:
    """Close a round in which the train groups have this mean."""
    summary = make_summary(mean, **{"groups": 2, **fields})
    evaluation = EvaluationResult(roles={"train": summary, "evaluation": None}, groups={})
    record.close_round(RoundEntry(round=number, evaluation=evaluation), Uniform)


class Large(Uniform):
    """A predictor of more bytes than a test lets a file have."""

    def arrays(self) -> Arrays:
        return {"zeros": np.zeros(100_000)}


def test_nothing_is_left_of_a_model_for_which_the_disk_has_no_room(
    config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with (
            pytest.raises(UserError, match=r"cannot write .*model"),
            recorded_run(path, "federated", config) as record,
        ):
            record.save_model("model", Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in path.iterdir()) == [".lock", "run.json"]
    info = read_run(path)
    assert info
    assert info.status == "failed"


def test_the_best_model_is_that_of_the_best_whole_evaluation(
    config: Config, tmp_path: Path
) -> None:
    with recorded_run(tmp_path, "federated", config) as record:
        record.describe(SURVEY, GROUPS)
        record.observers.append(BestModel(record))
        score(record, 0, 0.5)
        score(record, 1, 0.9, groups=1)  # of one of the two train groups
        score(record, 2, 0.7)
        score(record, 3, 0.9, mean_seen=0.6, mean_reserved=0.99)  # chosen on seen questions
        score(record, 4, 0.7)
        assert (record.info.best_round, record.info.best_score) == (2, 0.7)
        record.observers = [BestModel(record)]  # as where the run is resumed
        score(record, 5, 0.65)
        assert record.info.best_round == 2
    assert load_predictor(tmp_path / "best").kind == "uniform"


def test_checkpoints_come_every_so_many_rounds(config: Config, tmp_path: Path) -> None:
    with recorded_run(tmp_path, "federated", config) as record:
        record.observers.append(Checkpoints(record, 2))
        for number in range(1, 6):
            record.trained(number, Uniform)
            assert (tmp_path / "model").exists() == (number >= 2)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["round-0002", "round-0004"]


def test_rounds_are_read_while_they_are_written(tmp_path: Path) -> None:
    reader = RoundReader(tmp_path)
    assert reader.read() == []
    record = RunRecord(tmp_path, make_info())
    record.append_round(make_entry(0, 0.5))
    line = encode_line(make_entry(1, 0.6, 1.0))
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write(line[:50])
        file.flush()
        assert [entry.round for entry in reader.read()] == [0]
        file.write(line[50:])
    assert [encode_line(entry) for entry in reader.read()] == [line]
    assert reader.read() == []
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="damaged in line 3"):
        reader.read()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from pluralllm_app.records.lock import locked_run\n"
        "with locked_run(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="another process writes the run in"):
            locked_run(tmp_path).__enter__()
        process.kill()
    with locked_run(tmp_path):
        assert (tmp_path / ".lock").exists()
