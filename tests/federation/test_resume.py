"""A run that was cut off goes on as if it had not been, or says why it cannot."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Message

from pluralllm_app.engines.run_config import read_resumed_config
from pluralllm_app.engines.run_directory import reopen
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.federation.state import RunState
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.recording import Recording, recorded_run
from pluralllm_app.records.resume import check_resumable
from pluralllm_app.records.schema import RoundEntry
from pluralllm_app.records.writer import STATE, RunRecord, close_unfinished
from pluralllm_app.settings import ADDED_LATER, Scalar, Settings
from tests.conftest import make_survey
from tests.support.local_runs import CutOff, Finished, cut_off, read, record_of, resumed, run
from tests.support.weights import saved_weights

Config = dict[str, Scalar]


@pytest.fixture(
    params=[
        pytest.param(
            {"client-optimizer-state": "keep", "train-groups-per-round": 2},
            id="keep",
            marks=pytest.mark.slow,
        ),
        pytest.param({"strategy": "fedyogi"}, id="fedyogi"),
        pytest.param(
            {"strategy": "fedavgm", "fedavgm.momentum": 0.5},
            id="fedavgm",
            marks=pytest.mark.slow,
        ),
    ],
)
def whole(request: pytest.FixtureRequest, finished: Finished) -> Config:
    """The config of a run that was never cut off."""
    return finished({"rounds": 3, **request.param})


@pytest.mark.parametrize("exchange", [1, 2, 4])  # of the first, a middle, and the last round
def test_a_resumed_run_equals_the_uninterrupted_one(
    whole: Config, tmp_path: Path, exchange: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole | {"out": str(tmp_path / "run")}
    cut_off(config, exchange, monkeypatch)
    assert read(config)[0]["status"] == "failed"
    run(resumed(config))
    for model in ("model", "best", "checkpoints/round-0002"):
        ours, theirs = (saved_weights(Path(str(own["out"])) / model) for own in (config, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), model
    assert record_of(config) == record_of(whole)
    record, _ = read(config)
    assert record["status"] == "completed"
    assert record["error"] is None
    assert len(record["resumed"]) == 1
    assert record["best_round"] == read(whole)[0]["best_round"]
    left = {path.name for path in Path(str(config["out"])).iterdir()}
    assert left == {".lock", "run.json", "rounds.jsonl", "checkpoints", "model", "best"}


def test_a_run_recorded_before_a_setting_existed_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(config, 1, monkeypatch)
    file = Path(str(config["out"]), "run.json")
    record = json.loads(file.read_text())
    for key in ADDED_LATER:
        del record["settings"][key]
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="precision = auto, now precision = bfloat16"):
        check_resumable(file.parent, config | {"precision": "bfloat16"})
    own = read_resumed_config(file.parent)
    assert Settings.from_config(own).training.precision == "auto"
    run(own)
    assert read(config)[0]["status"] == "completed"


@pytest.mark.slow
def test_a_run_can_be_cut_off_again(
    config: Config, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep: Config = {"client-optimizer-state": "keep"}
    whole = finished(keep)
    config |= keep
    cut_off(config, 2, monkeypatch)
    cut_off(resumed(config), 1, monkeypatch)
    run(resumed(config))
    assert record_of(config) == record_of(whole)


def test_a_line_cut_off_in_the_middle_is_dropped(
    config: Config, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished({})
    cut_off(config, 2, monkeypatch)
    rounds = Path(str(config["out"]), "rounds.jsonl")
    rounds.write_text(rounds.read_text()[:-20])
    run(resumed(config))
    assert record_of(config) == record_of(whole)


@pytest.mark.slow
def test_a_run_below_the_quorum_goes_on(config: Config, finished: Finished) -> None:
    whole = finished({"rounds": 3})
    config |= {"min-train-groups": 3, "rounds": 3}
    trained = 0

    def fail_once(partition: int, message: Message) -> Message:
        nonlocal trained
        if partition == 1 and message.metadata.message_type == "train":
            trained += 1
            if trained == 2:
                raise RuntimeError("power cut")
        return message

    with pytest.raises(FederationError, match="fewer than min-train-groups"):
        run(config, reply=fail_once)
    assert [entry["round"] for entry in read(config)[1]] == [0, 1, 2]
    run(resumed(config))
    assert record_of(config) == record_of(whole)


def fail_in_round_two(config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    cut_off(config, 2, monkeypatch)
    return Path(str(config["out"]))


def test_what_cannot_be_resumed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FederationError, match="holds no run to resume"):
        run(resumed(config))
    out = fail_in_round_two(config, monkeypatch)
    with pytest.raises(FederationError, match=r"learning-rate = 0\.002, now learning-rate = 0\.5"):
        run(resumed(config) | {"learning-rate": 0.5})
    with pytest.raises(UserError, match="leave out empty"):
        run(resumed(config) | {"out": str(tmp_path / "other")})
    other = make_survey(tmp_path / "other", questions=31)
    with pytest.raises(FederationError, match="of a survey with fingerprint"):
        run(resumed(config) | {"survey": str(other.path)})
    state = (out / STATE).read_bytes()
    (out / STATE).write_bytes(state[:-10])
    with pytest.raises(FederationError, match="is damaged"):
        run(resumed(config))
    (out / STATE).unlink()
    with pytest.raises(FederationError, match=f"{STATE} is missing"):
        run(resumed(config))
    (out / STATE).write_bytes(state)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"versions": {"pluralllm_app": "0.0"}}))
    with pytest.raises(FederationError, match=r"of version 0\.0"):
        run(resumed(config))
    (out / "run.json").write_text(json.dumps(record))
    run(resumed(config))
    with pytest.raises(FederationError, match="is completed"):
        run(resumed(config))


def test_other_groups_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    out = fail_in_round_two(config, monkeypatch)
    record = json.loads((out / "run.json").read_text())
    record["roster"][1]["role"] = "evaluation"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        FederationError,
        match="'Birch' was evaluation with 30 questions, now it is train with 30 questions",
    ):
        run(resumed(config))


def test_lost_moments_are_missed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config |= {"client-optimizer-state": "keep", "min-train-groups": 3}
    out = fail_in_round_two(config, monkeypatch)
    for file in out.glob("clients/birch*/*/*"):
        file.unlink()
    lost = "Birch: this node has not kept its moments of round 1 in birch/[0-9a-f]{32}: give"
    with pytest.raises(FederationError, match=lost):
        run(resumed(config))


def test_two_processes_do_not_write_one_run(config: Config) -> None:
    out = Path(str(config["out"]))
    with recorded_run(out, "federated", config), pytest.raises(UserError, match="another process"):
        run(config)


def test_a_full_disk_leaves_the_last_good_state(
    config: Config, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished({"rounds": 3})
    config |= {"rounds": 3}

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    save, count = RunRecord.save_state, 0

    def fill_then_save(self: RunRecord, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == 3:
            monkeypatch.setattr("pluralllm_app.core.atomic.sync", full)
        save(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "save_state", fill_then_save)
        with pytest.raises(FederationError, match=r"cannot write .*No space left on device"):
            run(config)
        monkeypatch.undo()
    out = Path(str(config["out"]))
    assert RunState.load(out / STATE).round == 1
    assert not list(out.glob(".*.new"))
    run(resumed(config))
    assert record_of(config) == record_of(whole)


@pytest.mark.parametrize(
    ("method", "changes", "state", "remedy"),
    [
        ("federated", {}, True, "`pluralllm run --resume {out}`"),
        ("federated", {"survey": ""}, True, "`pluralllm deploy run DIR --resume {out}`"),
        ("federated", {}, False, "run it again in another directory"),
        ("centralized-paper", {}, False, "run it again in another directory"),
    ],
)
def test_a_write_error_says_how_to_go_on(
    config: Config, method: str, changes: Config, state: bool, remedy: str
) -> None:
    out = Path(str(config["out"]))
    with recorded_run(out, method, config | changes) as record:
        if state:
            record.save_state(b"")
        (out / "rounds.jsonl").mkdir()
        with pytest.raises(FederationError) as caught:
            record.append_round(RoundEntry(round=0))
    assert remedy.format(out=out) in str(caught.value)


def test_cut_off_while_it_ends_the_run_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Recording, status: str, error: str | None = None) -> None:
        raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(Recording, "finish", cut)
        with pytest.raises(CutOff):
            run(config)
    assert read(config)[0]["status"] == "running"
    run(resumed(config))
    assert read(config)[0]["status"] == "completed"
    assert not Path(str(config["out"]), STATE).exists()


def test_a_run_is_closed_by_none_but_its_own_command(config: Config) -> None:
    out = Path(str(config["out"]))
    with recorded_run(out, "federated", config):
        with pytest.raises(UserError, match="another process writes the run"):
            close_unfinished(out, "failed", "it is not mine")
        run = read_run(out)
        assert run is not None
        assert run.status == "running"


RECORDS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "emptied": lambda lines: [],
    "a round is missing": lambda lines: lines[1:],
    "one is there twice": lambda lines: [lines[0], *lines[:-1]],
    "torn in its last line": lambda lines: [*lines[:-1], lines[-1][:-20]],
    "torn in the middle": lambda lines: [lines[0][:40] + b"\n", *lines[1:]],
    "an end of a line is missing": lambda lines: [*lines[:-1], lines[-1].removesuffix(b"\n")],
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", RECORDS)
def test_a_record_that_lacks_a_round_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    config |= {"rounds": 3}
    cut_off(config, 3, monkeypatch)
    file = Path(str(config["out"]), "rounds.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)[:2]  # rounds 0 and 1
    before = b"".join(RECORDS[damage](lines))
    file.write_bytes(before)
    with pytest.raises(UserError, match=r"rounds\.jsonl is damaged"):
        reopen(file.parent, read_resumed_config(file.parent))
    with pytest.raises(UserError, match=r"rounds\.jsonl is damaged"):
        run(resumed(config))
    assert file.read_bytes() == before


def test_a_full_disk_at_a_resume_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(config, 2, monkeypatch)
    out = Path(str(config["out"]))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pluralllm_app.federation.state.write_atomically", full)
    with pytest.raises(UserError, match=r"cannot write .*rounds\.jsonl: .*No space left on device"):
        reopen(out, read_resumed_config(out))
