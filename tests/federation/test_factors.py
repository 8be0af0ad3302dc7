"""Latent factors learned by a federation: sums in, a predictor out."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from safetensors.numpy import load_file, save_file

from pluralllm_app import client_app, load_predictor, server_app
from pluralllm_app.core.seeding import generator
from pluralllm_app.errors import PredictorError, SettingsError
from pluralllm_app.federation.flower_compat import LOGGER
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record, record_to_arrays
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning.base import State
from pluralllm_app.learning.factors import LANDMARKS, OWN, FactorsLearner
from pluralllm_app.learning.registry import caution
from pluralllm_app.learning.sums import (
    Sums,
    TextFeatures,
    contribution,
    first_factors,
    maximise,
    to_standard,
)
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent
from pluralllm_app.predictors.factors.packing import pack_factors
from pluralllm_app.predictors.factors.predictor import option_rows
from pluralllm_app.predictors.factors.text_kernel import TextKernel
from pluralllm_app.preferences import split_questions
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import (
    Finished,
    broken,
    cut_off,
    in_round,
    read,
    record_of,
    resumed,
    run,
)

Config = dict[str, Scalar]


FACTORS: Config = {"predictor": "factors", "train-groups-per-round": 0, "rounds": 3}


@pytest.fixture
def config(config: Config) -> Config:
    """A tiny run that learns factors."""
    return config | FACTORS


def pooled(config: Config) -> Factors:
    """The same steps on pooled answers, without messages, learner or federation."""
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.path("survey"))
    text = option_rows(survey.all_questions())
    kernel = TextKernel.fit(text, LANDMARKS)
    features = TextFeatures(kernel.features(text))
    rng = generator(settings.federation.seed, "loadings")
    factors = first_factors(len(text), len(TRAIN) - 1, len(TRAIN), features.phi.shape[1], rng)
    for _ in range(settings.federation.rounds):
        parts = []
        for name in TRAIN:
            preferences = survey.preferences(name)
            known = preferences.select(split_questions(preferences, "train", settings.split).train)
            answers = Answers.of(known.rows, option_rows(known), known.shares)
            prior = Latent.standard(len(TRAIN) - 1)
            phi = kernel.first(OWN).features(answers.text)
            part = contribution(factors, answers, phi, prior)
            parts.append(part.sums(len(text)).pack())
        sums = Sums.unpack({name: sum(part[name] for part in parts) for name in parts[0]})
        factors = maximise(factors, sums.rotate(to_standard(sums)), features)
    return factors


def test_a_federation_gives_the_pooled_fit(finished: Finished) -> None:
    config = finished(FACTORS)
    record, rounds = read(config)
    assert record["status"] == "completed"
    assert [failure for entry in rounds for failure in entry["failures"]] == []
    found = load_predictor(f"{config['out']}/model").arrays()
    for name, array in pack_factors(pooled(config)).items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 2])  # all of them, or a sample
def test_a_resumed_run_equals_the_uninterrupted_one(
    config: Config, finished: Finished, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    whole = finished(FACTORS | {"train-groups-per-round": groups})
    config |= {"train-groups-per-round": groups}
    cut_off(config, 2, monkeypatch)
    run(resumed(config))
    ours, theirs = (
        Path(str(each["out"]), "model", "model.safetensors") for each in (config, whole)
    )
    assert ours.read_bytes() == theirs.read_bytes()
    assert record_of(config) == record_of(whole)


@pytest.mark.slow
def test_a_run_ends_by_itself_once_its_score_stays(config: Config) -> None:
    record, rounds = run(config | {"rounds": 60})
    assert record["ended_by"] == "score"
    assert 4 < len(rounds) < 60
    assert rounds[-1]["evaluation"] is not None
    state = load_file(Path(str(config["out"])) / "model" / "model.safetensors")
    assert (state["widths"] != state["widths"][0]).any()  # counted, not the normal's


@pytest.mark.slow
def test_a_sample_of_groups_learns_like_all_of_them(config: Config) -> None:
    long = config | {"rounds": 12, "evaluate-every": 12}
    run(long)
    whole = load_predictor(f"{config['out']}/model").arrays()
    record, rounds = run(long | {"train-groups-per-round": 2, "out": f"{config['out']}-sampled"})
    assert len(rounds) == 13  # a sample does not end a run
    assert "ended_by" not in record
    some = load_predictor(f"{config['out']}-sampled/model").arrays()
    # The offsets are means over groups; factors may be turned.
    assert np.corrcoef(whole["mean"][:, 0], some["mean"][:, 0])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("scores", "settled"),
    [
        ([0.74, 0.866, 0.8663, 0.8664], False),
        ([0.74, 0.866, 0.8663, 0.8664, 0.8664], True),
        ([0.74, 0.906, 0.898, 0.901, 0.906], False),  # a dip is no rest
        ([0.866, 0.866, 0.866], False),
    ],
)
def test_a_run_is_settled_once_its_score_rests(
    config: Config, tiny_survey: PreparedSurvey, scores: list[float], settled: bool
) -> None:
    learner = FactorsLearner(Settings.from_config(config), tiny_survey.all_questions, len(TRAIN))
    assert learner.settled(State({}, {"scores": np.array(scores)})) is settled


def test_a_group_that_lost_its_memory_is_counted_but_does_not_judge(config: Config) -> None:
    sent: list[dict[str, Any]] = []

    def listen(content: RecordDict) -> None:
        sent.append(record_to_arrays(content.array_records[ARRAYS]))
        if len(sent) == 1:
            shutil.rmtree(Path(str(config["out"])) / "clients" / "alder")

    def is_update(partition: int, reply: Message) -> bool:
        return partition == 0 and reply.metadata.message_type == MessageType.TRAIN

    run(config, reply=broken(listen, is_update))
    first, second, third = sent
    assert first["score"][1] == 1  # nothing of the group is in the first state
    assert second["score"].tolist() == [0, 0]
    assert not second["errors"].any()
    assert second["groups"][0] == 1
    assert third["score"][1] == 1


def test_a_group_without_answers_gets_the_populations(finished: Finished) -> None:
    config = finished(FACTORS)
    predictor = load_predictor(f"{config['out']}/model")
    group = PreparedSurvey.open(str(config["survey"])).preferences("Dogwood")
    nothing, everything = np.arange(0), np.arange(len(group))
    prediction = predictor.predict(group.select(nothing), group.ask(everything))
    assert prediction.deviation is not None
    np.testing.assert_allclose(np.add.reduceat(prediction.shares, group.starts), 1)
    informed = predictor.predict(group.select(everything[:20]), group.ask(everything))
    assert informed.deviation is not None
    assert informed.deviation.mean() < prediction.deviation.mean()


def spoiled(array: str, change: Callable[[Any], Any]) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        arrays = record_to_arrays(content.array_records[ARRAYS])
        content[ARRAYS] = arrays_to_record(arrays | {array: change(arrays[array])})

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoiled("gram", lambda array: array * np.nan), "its gram are not all finite"),
        (spoiled("cross", lambda array: array[:-1]), "its cross are float64"),
        (spoiled("answered", lambda array: array.astype(np.float32)), "its answered are float32"),
        (spoiled("answered", lambda array: array + 1), "its answered are not within 0 and 1"),
        (spoiled("groups", lambda array: array * 1000), "its groups are not within 1 and 1"),
        (spoiled("latent", lambda array: -array), "its latent is no second moment"),
        (spoiled("answered", lambda array: array * 0.5), "its answered is not 0 or 1"),
        (spoiled("answered", lambda array: array * 0), "its cross has rows that it did not answer"),
        (spoiled("errors", lambda array: array * 0 + 1), "its errors do not sum to 0 or 1"),
        (spoiled("score", lambda array: np.array([1.0, 1e-300])), "its score is none of one group"),
        (spoiled("agreement", lambda array: array + 1e9), "its agreement has more than"),
        (spoiled("described-second", lambda array: array + 9), "its described-second is other"),
        (spoiled("described-cross", lambda array: array + 9), "its described-cross is too large"),
    ],
)
def test_bad_sums_are_refused_and_recorded(
    config: Config, change: Callable[[RecordDict], None], reason: str
) -> None:
    record, rounds = run(config | {"rounds": 1}, reply=broken(change, in_round(1, 0)))
    assert record["status"] == "completed"
    (failure,) = rounds[1]["failures"]
    assert (failure["group"], failure["phase"]) == ("Alder", "train")
    assert reason in failure["reason"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"strategy": "krum"}, "strategy = 'krum' does not go with predictor = 'factors'"),
        ({"weighting": "uniform"}, "set weighting = 'questions'"),
        ({"predictor": "factor"}, "did you mean 'factors'"),
    ],
)
def test_settings_that_mean_nothing_for_sums_are_refused(
    config: Config, override: Config, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_strategy(Settings.from_config(config | override))
    assert message in str(caught.value)


def test_a_damaged_model_is_refused(finished: Finished, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(Path(str(finished(FACTORS)["out"])) / "model", model)
    weights, card = model / "model.safetensors", model / "config.json"
    good, described = load_file(weights), json.loads(card.read_text())
    for changes, fault in (
        ({"mean": good["mean"] * np.nan}, "mean is not all finite"),
        ({"mean": good["mean"][1:]}, "mean is"),
    ):
        save_file(good | changes, weights)
        with pytest.raises(PredictorError, match=fault):
            load_predictor(model)
    save_file(good, weights)
    for change, fault in (({"rows": 3}, "mean is"), ({"kind": "factor"}, "unknown kind")):
        card.write_text(json.dumps(described | change))
        with pytest.raises(PredictorError, match=fault):
            load_predictor(model)


def test_every_run_says_what_sums_reveal(
    config: Config, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that Flower's own command starts, which shows what the ServerApp logs."""
    monkeypatch.setattr(LOGGER, "propagate", True)
    context = Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config | {"rounds": 1}
    )
    server_app.app(LocalGrid(client_app.app, config, nodes=5), context)
    assert "sends its sums in the clear" in logged.getvalue()
    assert caution(Settings.from_config(config | {"predictor": "gpo"})) == ""
