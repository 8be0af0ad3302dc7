"""Runs whose server sees sums alone: the same results, with groups that are lost at any time."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from safetensors.numpy import load_file

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError, SettingsError
from pluralllm_app.federation.messages import ARRAYS, METRICS, record_of, record_to_arrays
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.secure_group import SECURE_SUM
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning import gpo
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN, make_survey, tiny_config
from tests.federation.test_lost_nodes import Leaving
from tests.support.local_grid import LocalGrid
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

SECURE: Config = {"privacy": "secure-sum", "train-groups-per-round": 0}
FACTORS: Config = SECURE | {"predictor": "factors", "rounds": 3}
FIVE = ("Alder", "Birch", "Cedar", "Fir", "Gum")  # partitions 0, 1, 2, 4 and 5


def model(config: Config) -> bytes:
    return Path(str(config["out"] or config["resume-from"]), "model/model.safetensors").read_bytes()


def arrays(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = load_file(Path(str(config["out"]), "model/model.safetensors"))
    return found


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey of five train groups, so that secure sums do without one."""
    path = tmp_path_factory.mktemp("five") / "survey"
    return make_survey(path, train=FIVE, evaluation=("Dogwood",))


@pytest.fixture
def of_five(five: PreparedSurvey, tmp_path: Path) -> Config:
    return tiny_config(five, tmp_path / "run") | SECURE


# ---- The same results ----


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "fedavg"},
        {"strategy": "fedadam"},
        {"strategy": "fedprox", "weighting": "uniform"},
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


@pytest.mark.parametrize("prior", ["none", "factors"])
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


# ---- Groups that are lost ----


@pytest.mark.parametrize("kind", [{}, {"predictor": "factors"}], ids=str)
def test_a_run_goes_on_without_a_group_that_is_lost_in_a_round(
    of_five: Config, tmp_path: Path, kind: Config
) -> None:
    """Its masks are taken off; the result is that of a run in which it is lost in the same way."""
    secure = of_five | kind | {"rounds": 3}

    def silent(config: Config) -> None:
        hit = in_round(2, 1)
        run(config, nodes=6, reply=lambda who, it: None if hit(who, it) else it)

    silent(secure)
    _, rounds = read(secure)
    sums = [entry["train"]["secure_sum"] for entry in rounds[1:]]
    assert [each["groups"] for each in sums] == [5, 4, 5]
    assert [each["exchanges"] for each in sums][1:] == [2, 1]  # agreeing, and opening
    assert [failure["group"] for failure in rounds[2]["failures"]] == ["Birch"]
    if not kind:
        plain = secure | {"privacy": "none", "out": str(tmp_path / "plain")}
        silent(plain)
        for name, array in arrays(plain).items():
            np.testing.assert_allclose(arrays(secure)[name], array, atol=1e-7, err_msg=name)


def steps(grid: LocalGrid) -> list[str]:
    """The steps of the protocol in the order of the messages."""
    return [
        str(message.content[SECURE_SUM]["step"])  # type: ignore[index]
        for message in grid.sent
        if SECURE_SUM in message.content
    ]


def failing(step: str, partition: int, times: int = 1) -> Callable[..., Any]:
    """Replies of which those of a partition to a step are lost, so many times."""
    left = [times]

    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        asked = grid.sent[-1].content
        of_sums = who == partition and SECURE_SUM in asked
        if of_sums and left[0] and asked[SECURE_SUM]["step"] == step:  # type: ignore[index]
            left[0] -= 1
            return None
        return message

    return reply


def run_failing(config: Config, reply: Callable[..., Any]) -> tuple[LocalGrid, list[str]]:
    lines: list[str] = []
    grid = LocalGrid(client_app.app, config, 6, lambda who, it: reply(who, it, grid))
    run_federation(grid, Settings.from_config(config), config, lines.append)
    return grid, lines


def test_a_group_lost_while_keys_are_made_is_left_out_of_the_setup(of_five: Config) -> None:
    grid, _ = run_failing(of_five, failing("advertise", 1))
    _, rounds = read(of_five)
    assert [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]] == [4, 4]
    assert steps(grid)[:13] == ["advertise"] * 5 + ["advertise"] * 4 + ["deal"] * 4
    assert {failure["group"] for failure in rounds[1]["failures"]} == {"Birch"}


def test_a_group_lost_while_shares_are_dealt_is_left_out_of_the_setup(of_five: Config) -> None:
    grid, _ = run_failing(of_five, failing("deal", 4))
    assert steps(grid)[:18] == ["advertise"] * 5 + ["deal"] * 5 + ["advertise"] * 4 + ["deal"] * 4
    _, rounds = read(of_five)
    assert [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]] == [4, 4]


def test_a_group_lost_while_a_sum_is_opened_is_in_the_sum(
    of_five: Config, five: PreparedSurvey, tmp_path: Path
) -> None:
    _, lines = run_failing(of_five, failing("open", 2))
    assert "opening a sum: Cedar failed: no reply within 0.3 s" in lines
    whole = tiny_config(five, tmp_path / "whole") | SECURE
    run(whole, nodes=6)
    assert model(of_five) == model(whole)


def test_too_few_groups_end_the_run(of_five: Config) -> None:
    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        train = message.metadata.message_type == "train"
        return None if train and who in (0, 1) else message

    with pytest.raises(
        FederationError, match=r"good updates: 3, fewer than the threshold of secure sums = 4"
    ):
        run_failing(of_five, reply)


def test_a_sum_that_too_few_open_ends_the_run_and_it_can_go_on(of_five: Config) -> None:
    lost = [failing("open", partition) for partition in (0, 1)]

    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        return message if all(each(who, message, grid) for each in lost) else None

    with pytest.raises(FederationError, match=r"opened a sum: 3 of 5 groups.*Alder: no reply"):
        run_failing(of_five, reply)
    run_failing(resumed(of_five), lambda who, message, grid: message)
    record, _ = read(resumed(of_five))
    assert record["status"] == "completed"


def test_a_round_waits_for_a_node_without_whom_a_sum_stays_closed(
    config: Config, finished: Finished
) -> None:
    whole = finished({**SECURE, "strategy": "fedavg"})
    config |= SECURE | {"grace-period": 60.0}
    lines: list[str] = []
    grid = Leaving(config, in_round(2, 1), looks=3)
    run_federation(grid, Settings.from_config(config), config, lines.append)
    assert "round 2: back are Birch" in lines
    assert model(config) == model(whole)


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
    with pytest.raises(FederationError, match=r"Alder: this group's weights has a number of size"):
        run(config | SECURE)


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
