"""Runs whose server sees sums alone: the same results, with groups that are lost at any time."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError, SettingsError
from pluralllm_app.federation.messages import ARRAYS, METRICS, record_of, record_to_arrays
from pluralllm_app.federation.secure_group import SECURE_SUM
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning import gpo
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN, make_survey, tiny_config
from tests.support.local_runs import (
    Config,
    Finished,
    broken,
    cut_off,
    in_round,
    read,
    resumed,
    run,
)
from tests.support.secure_runs import SECURE, arrays, model

FACTORS: Config = SECURE | {"predictor": "factors", "rounds": 3}


# ---- The same results ----


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "fedavg"},
        pytest.param({"strategy": "fedadam"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "fedprox", "weighting": "uniform"}, marks=pytest.mark.slow),
        {"weight-cap": 0.35, "client-optimizer-state": "keep"},
    ],
    ids=str,
)
def test_weights_are_those_of_a_run_without(finished: Finished, settings: Config) -> None:
    """But for their last bits: a sum of differences is rounded otherwise than one of weights."""
    plain = finished({"train-groups-per-round": 0, **settings})
    secure = finished({**SECURE, **settings})
    for name, array in arrays(plain).items():
        np.testing.assert_allclose(arrays(secure)[name], array, rtol=0, atol=5e-6, err_msg=name)
    (_, plainly), (record, rounds) = read(plain), read(secure)
    assert record["secure_threshold"] == 3
    for one, other in zip(plainly, rounds, strict=True):
        means, others = (
            [role["mean"] for role in entry["evaluation"]["roles"].values()]
            for entry in (one, other)
        )
        assert others == pytest.approx(means, abs=1e-5)
        if one["train"]:
            assert other["train"]["loss"] == pytest.approx(one["train"]["loss"], abs=1e-5)


def enough(
    sent: Arrays, survey: PreparedSurvey, settings: Settings, preferences: PreferenceSet
) -> PreferenceSet:
    """What a group learns from where two others have to have answered it, counted here."""
    counts = np.zeros(len(sent["mean"]))
    for name in TRAIN:
        own = survey.preferences(name)
        counts[own.select(split_questions(own, "train", settings.split).train).rows] += 1
    train = split_questions(preferences, "train", settings.split).train
    known = preferences.select(train)
    return known.select(np.flatnonzero(counts[known.first_rows] >= 3))


@pytest.mark.parametrize("prior", ["none", pytest.param("factors", marks=pytest.mark.slow)])
def test_factors_are_those_of_plain_sums(
    config: Config,
    finished: Finished,
    tiny_survey: PreparedSurvey,
    monkeypatch: pytest.MonkeyPatch,
    prior: str,
) -> None:
    """Over the rows that three groups have answered, to the rounding of fixed point."""
    kind = {"predictor": "gpo", "prior": "factors", "rounds": 2} if prior == "factors" else {}
    secure = finished({**FACTORS, **kind})
    settings = Settings.from_config(config)

    def known(self: FactorsLearner, sent: Arrays, preferences: PreferenceSet) -> PreferenceSet:
        return enough(sent, tiny_survey, settings, preferences)

    monkeypatch.setattr(FactorsLearner, "known", known)
    plain = config | FACTORS | kind | {"privacy": "none"}
    run(plain)
    for name, array in arrays(plain).items():
        np.testing.assert_allclose(arrays(secure)[name], array, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_rows_that_two_groups_answered_are_left_out(finished: Finished) -> None:
    """Their sum would give each of the two the other's answers."""
    few, more = (finished({**FACTORS, "min-contributors": least}) for least in (2, 3))
    assert (arrays(few)["mean"] != arrays(more)["mean"]).any()
    record, rounds = read(more)
    assert record["status"] == "completed"
    assert [failure for entry in rounds for failure in entry["failures"]] == []


def test_a_group_left_without_rows_says_so(config: Config) -> None:
    with pytest.raises(
        FederationError, match=r"fewer than 2 were answered by min-contributors = 4"
    ):
        run(config | FACTORS | {"min-contributors": 4})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, {"predictor": "factors"}], ids=str)
@pytest.mark.parametrize("exchange", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(
    config: Config,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    kind: Config,
    exchange: int,
) -> None:
    """It is cut off after groups have masked their contributions, and takes fresh sums."""
    whole = finished({**SECURE, **kind, "rounds": 3})
    config |= SECURE | kind | {"rounds": 3}
    cut_off(config, exchange, monkeypatch)
    run(resumed(config))
    assert model(config) == model(whole)


# ---- What is recorded, and what the server sees ----


def test_a_round_says_how_it_was_summed(finished: Finished) -> None:
    _, rounds = read(finished({**SECURE, "strategy": "fedavg"}))
    first, second = (entry["train"]["secure_sum"] for entry in rounds[1:])
    # Keys, shares, and what opens the sum; later only the last.
    assert (first["exchanges"], second["exchanges"]) == (3, 1)
    for each in (first, second):
        assert (each["groups"], each["cohort"], each["threshold"]) == (3, 3, 3)
        # 27 questions are the largest weight, a weight changes by 64 at most: 3 * 27 * 64 < 2^13.
        assert each["bits"]["weights"] == 62 - 13
        assert each["seconds"] > 0
    assert first["bytes"] > second["bytes"] > 3 * 8 * 700
    for entry in rounds[1:]:
        for group in entry["train"]["groups"].values():
            assert set(group) == {"questions", "seconds"}  # no loss of a single group


@pytest.mark.slow
def test_the_server_receives_masked_words_and_no_answer(
    config: Config, tiny_survey: PreparedSurvey
) -> None:
    """Of all that it receives in a run, nothing but words that look random has a group's arrays."""
    texts: list[bytes] = []
    words: list[np.ndarray] = []

    def listen(partition: int, reply: Message) -> Message:
        for name, record in reply.content.items():
            if isinstance(record, ArrayRecord):
                for key, array in record_to_arrays(record).items():
                    assert (key, array.dtype) == ("masked", np.uint64)
                    words.append(array)
            elif name == METRICS:
                assert isinstance(record, MetricRecord)
                assert set(record) == {"num-examples", "seconds"}
            elif name == SECURE_SUM:
                texts.append(bytes(record["content"]))  # type: ignore[arg-type]
        return reply

    run(config | FACTORS, reply=listen)
    every = np.concatenate(words)
    assert len(words) == 3 * (1 + 3)  # what three groups answered, and three rounds
    assert len(np.unique(every)) == len(every)
    high = (every >> np.uint64(63)).mean()
    assert abs(high - 0.5) < 6 * 0.5 / np.sqrt(len(every))  # by chance once in 5e8 runs
    said = b"".join([*texts, every.tobytes()])
    for name in TRAIN:
        own = tiny_survey.preferences(name)
        for share in own.shares:
            for number in (share, np.sqrt(share)):
                assert number.astype(np.float64).tobytes() not in said
                assert number.astype(np.float32).tobytes() * 2 not in said


# ---- What is refused ----


@pytest.mark.parametrize("strategy", ["fedmedian", "fedtrimmedavg", "krum", "multikrum", "qfedavg"])
def test_strategies_that_look_at_single_updates_are_refused(
    make_settings: Callable[..., Settings], strategy: str
) -> None:
    settings = make_settings({**SECURE, "strategy": strategy, "min-train-groups": 9})
    with pytest.raises(SettingsError, match=f"'{strategy}' looks at each group's update"):
        make_strategy(settings)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"train-groups-per-round": 2}, "train-groups-per-round = 2 of 3 train groups"),
        ({"secure-threshold": 2}, "secure-threshold = 2 does not go with 3 train groups"),
        ({"secure-threshold": 4}, "set it to 3 to 3"),
    ],
)
def test_a_run_that_cannot_sum_securely_does_not_begin(
    config: Config, changes: Config, error: str
) -> None:
    with pytest.raises(FederationError, match=error):
        run(config | SECURE | changes)


def test_two_groups_hide_nothing(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey", train=("Alder", "Birch"), evaluation=("Dogwood",))
    with pytest.raises(FederationError, match="2 train groups, and a sum over fewer than 3 hides"):
        run(tiny_config(survey, tmp_path / "run") | SECURE, nodes=3)


def test_a_number_too_large_is_refused_by_its_group_and_named(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpo, "LARGEST_STEP", 1e-12)
    with pytest.raises(FederationError, match=r"Alder: this group's weights has a number above"):
        run(config | SECURE)


@pytest.mark.slow
def test_a_masked_vector_of_wrong_length_is_refused(of_five: Config) -> None:
    def shorten(content: Any) -> None:
        [words] = record_to_arrays(record_of(content, ARRAYS, ArrayRecord)).values()
        content[ARRAYS] = client_app.arrays_to_record({"masked": words[:-1]})

    run(of_five, nodes=6, reply=broken(shorten, in_round(2, 1)))
    _, rounds = read(of_five)
    [failure] = rounds[2]["failures"]
    assert failure["group"] == "Birch"
    assert "refused: its masked are uint64" in failure["reason"]
    assert rounds[2]["train"]["secure_sum"]["groups"] == 4


def test_a_changed_masked_vector_is_found_out(of_five: Config) -> None:
    def change(content: Any) -> None:
        [words] = record_to_arrays(record_of(content, ARRAYS, ArrayRecord)).values()
        content[ARRAYS] = client_app.arrays_to_record({"masked": words + np.uint64(1)})

    with pytest.raises(FederationError, match="do not cancel"):
        run(of_five, nodes=6, reply=broken(change, in_round(2, 1)))


def test_a_server_that_names_no_sum_gets_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pluralllm_app.federation import asking

    real = asking.round_messages

    def without(*arguments: Any) -> list[Message]:
        messages = real(*arguments)
        for message in messages:
            message.content.pop(SECURE_SUM, None)
        return messages

    monkeypatch.setattr("pluralllm_app.federation.rounds.round_messages", without)
    with pytest.raises(FederationError, match="the server does not say which sum"):
        run(config | SECURE)


def test_a_simulation_leaves_no_secrets(config: Config) -> None:
    run(config | SECURE)
    out = Path(str(config["out"]))
    assert not (out / "clients").exists()
    shutil.rmtree(out)
