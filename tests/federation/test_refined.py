"""Factors first, and then the network on top of them, in one federation."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import MessageType, RecordDict

from pluralllm_app import load_predictor
from pluralllm_app.errors import SettingsError
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record, record_to_arrays
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning.registry import caution, needs_questions
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.refined.predictor import RefinedPredictor
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.local_runs import broken, cut_off, in_round, record_of, resumed, run

pytestmark = pytest.mark.slow

Config = dict[str, Scalar]
FACTOR_ROUNDS = 3  # half of the rounds: the factors of so small a survey are not settled by then


@pytest.fixture
def config(config: Config) -> Config:
    """A tiny run that learns factors, and then refines them."""
    return config | {"prior": "factors", "train-groups-per-round": 0, "rounds": 6}


def model(config: Config, name: str = "model") -> Path:
    return Path(str(config["out"])) / name


def refined(config: Config) -> RefinedPredictor:
    predictor = load_predictor(model(config))
    assert isinstance(predictor, RefinedPredictor)
    return predictor


def test_the_factors_are_those_of_a_run_without_a_network(config: Config, tmp_path: Path) -> None:
    record, rounds = run(config)
    assert record["status"] == "completed"
    assert [failure for entry in rounds for failure in entry["failures"]] == []
    alone = config | {"prior": "none", "predictor": "factors", "rounds": FACTOR_ROUNDS}
    alone |= {"out": str(tmp_path / "alone")}
    run(alone)
    ours, theirs = refined(config).factors.arrays(), load_predictor(model(alone)).arrays()
    assert all((ours[name] == array).all() for name, array in theirs.items())
    steps = [entry["train"]["steps"] for entry in rounds[1:]]
    assert steps == [1] * FACTOR_ROUNDS + [2] * 3  # of sums, and `local-steps`


def test_training_changes_the_network_and_what_is_predicted(config: Config) -> None:
    run(config)
    predictor = refined(config)
    group = PreparedSurvey.open(str(config["survey"])).preferences("Dogwood")
    context, target = group.select(np.arange(20)), group.ask(np.arange(20, len(group)))
    ours, factors = predictor.predict(context, target), predictor.factors.predict(context, target)
    assert 0 < np.abs(ours.shares - factors.shares).max() < 0.1
    np.testing.assert_allclose(np.add.reduceat(ours.shares, target.starts), 1)


@pytest.mark.parametrize("exchange", [2, FACTOR_ROUNDS + 1, 6])  # of factors, and of the network
def test_a_resumed_run_equals_the_uninterrupted_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: int
) -> None:
    config |= {"client-optimizer-state": "keep", "strategy": "fedadam"}
    whole = config | {"out": str(tmp_path / "whole")}
    run(whole)
    cut_off(config, exchange, monkeypatch)
    run(resumed(config))
    ours, theirs = ((model(each) / "model.safetensors").read_bytes() for each in (config, whole))
    assert ours == theirs
    assert record_of(config) == record_of(whole)


def test_factors_that_are_settled_leave_the_other_rounds_to_the_network(config: Config) -> None:
    _, rounds = run(config | {"rounds": 40})
    steps = [entry["train"]["steps"] for entry in rounds[1:]]
    factor_rounds = steps.count(1)
    assert 4 <= factor_rounds < 20
    assert steps == [1] * factor_rounds + [2] * (40 - factor_rounds)


def test_the_schedule_begins_with_the_network(config: Config, tmp_path: Path) -> None:
    """In its first step the rate of the cosine is the full one."""
    config |= {"rounds": 2, "local-steps": 1}
    other = config | {"schedule": "constant", "out": str(tmp_path / "constant")}
    run(config)
    run(other)
    ours, theirs = ((model(each) / "model.safetensors").read_bytes() for each in (config, other))
    assert ours == theirs


@pytest.mark.parametrize("strategy", ["fedprox", "fedmedian", "qfedavg"])
def test_any_strategy_trains_the_network(config: Config, strategy: str) -> None:
    record, _ = run(config | {"strategy": strategy, "rounds": 3})
    assert record["status"] == "completed"
    last = dict(refined(config).network.named_parameters())["predictor.2.weight"]
    assert bool(last.abs().max() > 0)


def trained(config: Config, tmp_path: Path, name: str, change: Any) -> list[np.ndarray]:
    """What the first group sends of the network, where its first state was changed before."""
    sent: list[np.ndarray] = []
    place = config | {"out": str(tmp_path / name)}

    def listen(content: RecordDict) -> None:
        arrays = record_to_arrays(content.array_records[ARRAYS])
        if "weights" in arrays:
            sent.append(arrays["weights"])
        else:
            change(content, Path(str(place["out"])) / "clients" / "alder")

    def is_update(partition: int, reply: Any) -> bool:
        return partition == 0 and reply.metadata.message_type == MessageType.TRAIN

    run(place, reply=broken(listen, is_update))
    return sent


def test_a_group_trains_on_factors_without_its_own_answers(config: Config, tmp_path: Path) -> None:
    """A group that has lost its memory trains on the factors as they are: that is another task."""
    whole = trained(config, tmp_path, "whole", lambda content, memory: None)
    lost = trained(
        config, tmp_path, "lost", lambda content, memory: shutil.rmtree(memory / "factors")
    )
    assert len(whole) == len(lost) == 3
    assert (whole[0] != lost[0]).any()


def spoil(content: RecordDict) -> None:
    arrays = record_to_arrays(content.array_records[ARRAYS])
    content[ARRAYS] = arrays_to_record(arrays | {"weights": arrays["weights"] * np.nan})


def test_what_a_group_sends_is_checked_in_both_parts(config: Config) -> None:
    _, rounds = run(config, reply=broken(spoil, in_round(FACTOR_ROUNDS + 1, 0)))
    (failure,) = rounds[FACTOR_ROUNDS + 1]["failures"]
    assert failure["reason"] == "refused: its weights are not all finite"


def test_a_sample_of_groups_learns_both(config: Config) -> None:
    record, rounds = run(config | {"train-groups-per-round": 2})
    assert record["status"] == "completed"
    assert [len(entry["train"]["groups"]) for entry in rounds[1:]] == [2] * 6
    refined(config)


def test_a_checkpoint_of_the_first_rounds_is_of_factors(config: Config) -> None:
    run(config)
    kinds = [
        type(load_predictor(model(config, f"checkpoints/round-{number:04d}")))
        for number in (FACTOR_ROUNDS - 1, FACTOR_ROUNDS)
    ]
    assert kinds == [FactorsPredictor, RefinedPredictor]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"predictor": "factors"}, "prior = 'factors' does not go with predictor = 'factors'"),
        ({"prior": "factor"}, "did you mean 'factors'"),
    ],
)
def test_a_prior_of_nothing_is_refused(config: Config, override: Config, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_strategy(Settings.from_config(config | override))
    assert message in str(caught.value)


def test_it_needs_and_reveals_what_factors_do(config: Config) -> None:
    assert "with prior = factors each group sends its sums" in caution(Settings.from_config(config))
    assert needs_questions(config)
    assert not needs_questions(config | {"prior": "none"})
