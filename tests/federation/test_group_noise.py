"""Noise that hides all that any one group answered: clipped updates, and shares of the noise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import MetricRecord

from pluralllm_app.errors import FederationError, RefusedError, SettingsError
from pluralllm_app.federation import noised_updates, secure_group
from pluralllm_app.federation.ledger import Draw
from pluralllm_app.federation.messages import METRICS
from pluralllm_app.federation.noised_updates import NoisedUpdates
from pluralllm_app.federation.secure_group import SecureGroup
from pluralllm_app.federation.summands import Summands
from pluralllm_app.learning.base import ArrayForm, Contribution, Form
from pluralllm_app.privacy.accounting import epsilon_of, rho_of
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.secure_sum.group import GroupHalf
from pluralllm_app.settings import Settings
from tests.support.local_runs import Config, Finished, cut_off, in_round, read, resumed, run
from tests.support.secure_runs import SECURE, arrays, model

Make = Callable[..., Settings]

NOISED: Config = SECURE | {
    "noise": "groups",
    "epsilon": 4.0,
    "update-norm": 0.5,
    "weighting": "uniform",
}


def seeded(monkeypatch: pytest.MonkeyPatch, times: float = 1.0) -> None:
    """Noise of a seeded generator, `times` as large as it has to be."""
    generator = np.random.default_rng(0)

    def draw(values: np.ndarray, scale: float) -> np.ndarray:
        noise: np.ndarray = np.rint(generator.normal(0, scale * times, len(values)))
        return values + noise.astype(np.int64)

    monkeypatch.setattr(noised_updates, "discrete_gaussian", draw)


# ---- The guarantee ----


def test_an_update_is_clipped_to_its_norm() -> None:
    """(3, 4) has the norm 5."""
    noise = GroupNoise(norm=1.0, rho=0.1, delta=1e-6)
    np.testing.assert_allclose(noise.clipped(np.array([3.0, 4.0])), [0.6, 0.8], rtol=2e-10)
    assert np.linalg.norm(noise.clipped(np.full(1000, 7.0))) <= 1.0
    small = np.array([0.3, 0.4])
    assert (noise.clipped(small) == small).all()
    assert (noise.clipped(np.zeros(2)) == 0).all()
    for odd in (np.nan, np.inf):
        assert (noise.clipped(np.array([odd, 1.0])) == 0).all()


def test_the_scale_by_hand() -> None:
    """C = 1 on a grid of 2^-10: replacing a group moves a sum of 100 weights by 2048 + 10 steps.

    A cost of rho = 1/8 a round takes a deviation of 2058 / sqrt(2/8) = 4116 steps, to which each of
    4 groups adds 4116 / 2.
    """
    noise = GroupNoise(norm=1.0, rho=0.125, delta=1e-6)
    assert noise.multiplier == 2.0
    assert noise.scale(bits=10, parameters=100, threshold=4) == pytest.approx(2058)


def test_all_rounds_together_spend_the_epsilon(make_settings: Make) -> None:
    federation = make_settings(NOISED | {"rounds": 50}).federation
    noise = GroupNoise.of(federation)
    assert noise is not None
    spent = [noise.spent(rounds) for rounds in (1, 25, 50)]
    assert spent[0] < spent[1] < spent[2]
    assert 0.99 * 4.0 < spent[2] <= 4.0
    assert spent[0] == epsilon_of(noise.rho, 1e-6)


def test_neighbours_differ_by_no_more_than_the_sensitivity() -> None:
    """The vectors of one group, whatever it learned: clipped, and rounded to the grid."""
    noise = GroupNoise(norm=0.5, rho=0.1, delta=1e-6)
    form = Form(
        {"weights": ArrayForm(np.dtype(np.float32), (50,), room=noise.room)}, {}, None, True
    )
    summands = Summands.of(form, dict.fromkeys("abc", 1.0), 0.5, noise)
    [field] = summands.layout.fields.values()
    sensitivity = noise.scale(field.bits, 50, 1) / noise.multiplier
    rng = np.random.default_rng(0)
    sent = {"weights": rng.normal(size=50).astype(np.float32)}
    vectors = []
    direction = rng.normal(size=50)
    for size in (1e-3, 1.0, -1.0, 1e30, -1e30, np.nan):
        with np.errstate(over="ignore"):
            learned = (sent["weights"] + size * direction).astype(np.float32)
        vector = summands.vector("a", sent, Contribution({"weights": learned}, 1.0, {}))
        assert vector[0] == 1
        vectors.append(np.ldexp(vector[1:].view(np.int64).astype(np.float64), -field.bits))
    distances = [np.linalg.norm(one - other) for one in vectors for other in vectors]
    assert max(distances) <= np.ldexp(sensitivity, -field.bits)
    assert max(distances) > 0.99 * 2 * 0.5  # 1.0 and -1.0 point in opposite directions


@pytest.mark.slow
def test_the_noise_of_a_sum_is_that_of_the_mechanism() -> None:
    """Real draws, of six groups of whom six open the sum: chi-square of 600 numbers."""
    noise = GroupNoise(norm=1.0, rho=0.125, delta=1e-6)
    scale = noise.scale(bits=20, parameters=600, threshold=6)
    total = sum(
        noised_updates.discrete_gaussian(np.zeros(600, np.int64), scale).astype(np.float64)
        for _ in range(6)
    )
    deviation = 2 * (2 * 2.0**20 + np.sqrt(600))
    ratios = total / deviation
    from scipy.stats import chi2, kstest  # not at the top: every worker would wait a second for it

    low, high = chi2.ppf([1e-9, 1 - 1e-9], 600)
    assert low < (ratios**2).sum() < high
    assert kstest(ratios, "norm").pvalue > 1e-9


# ---- Runs ----


@pytest.mark.slow
def test_without_noise_it_is_a_run_of_clipped_updates(
    finished: Finished, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no update is as long as the norm, it is a run without either."""
    plain = finished({**SECURE, "weighting": "uniform"})
    seeded(monkeypatch, times=0.0)
    config |= NOISED | {"update-norm": 100.0}
    run(config)
    for name, array in arrays(plain).items():
        np.testing.assert_allclose(arrays(config)[name], array, rtol=0, atol=5e-6, err_msg=name)


@pytest.mark.slow
def test_a_round_says_what_was_spent_and_nothing_of_a_single_group(config: Config) -> None:
    def listen(partition: int, reply: Any) -> Any:
        if METRICS in reply.content:
            assert isinstance(reply.content[METRICS], MetricRecord)
            assert set(reply.content[METRICS]) == {"num-examples", "seconds"}
        return reply

    record, rounds = run(config | NOISED, reply=listen)
    spent = [entry["train"]["epsilon"] for entry in rounds[1:]]
    assert 0 < spent[0] < spent[1] <= 4.0
    unit = "all that one train group answered"
    assert record["noise"] == {"unit": unit, "epsilon": 4.0, "delta": 1e-6}
    for entry in rounds:
        assert entry["evaluation"]["roles"]["train"] is None
        assert {*entry["evaluation"]["groups"]} == {"Dogwood", "Élan 中/.."}
    assert all(entry["train"]["loss"] is None for entry in rounds[1:])


@pytest.mark.slow
def test_a_round_that_is_asked_again_gets_the_same_noise(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cut off after its groups have noised their updates, and goes on."""
    drawn: list[int] = []
    real = noised_updates.discrete_gaussian

    def draw(values: np.ndarray, scale: float) -> np.ndarray:
        drawn.append(len(values))
        return real(values, scale)

    monkeypatch.setattr(noised_updates, "discrete_gaussian", draw)
    config |= NOISED
    cut_off(config, 2, monkeypatch)
    assert len(drawn) == 3 * 2
    _, rounds = run(resumed(config))
    assert len(drawn) == 3 * 2
    assert rounds[2]["train"]["epsilon"] <= 4.0


@pytest.mark.slow
def test_a_lost_group_leaves_enough_noise(of_five: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of five groups adds as much as if four opened the sum."""
    scales: list[float] = []

    def draw(values: np.ndarray, scale: float) -> np.ndarray:
        scales.append(scale)
        return values

    monkeypatch.setattr(noised_updates, "discrete_gaussian", draw)
    hit = in_round(1, 1)
    run(of_five | NOISED, nodes=6, reply=lambda who, it: None if hit(who, it) else it)
    _, rounds = read(of_five)
    assert [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]] == [4, 5]
    settings = Settings.from_config(of_five | NOISED)
    noise = GroupNoise.of(settings.federation)
    assert noise is not None
    bits = rounds[1]["train"]["secure_sum"]["bits"]["weights"]
    parameters = sum(array.size for array in arrays(of_five).values())
    assert set(scales) == {noise.scale(bits, parameters, 4)}


def test_each_vector_is_a_draw_of_its_own(tmp_path: Path) -> None:
    """Noted before it is drawn; only what is the same in all is given again, for nothing."""
    noted: list[str] = []
    updates = NoisedUpdates(tmp_path, "e" * 32, noted.append)
    vector = np.ones(4, np.uint64)
    first = updates.of(vector, 1e6, b"first", 1)
    assert first[0] == 1
    assert (first[1:] != 1).any()
    assert (updates.of(vector, 1e6, b"first", 1) == first).all()
    assert len(noted) == 1
    updates.of(vector, 1e6, b"second", 1)  # weights of the server's own making
    updates.of(vector, 2e6, b"first", 1)  # a larger share of the noise, as fewer groups have to add
    replace(updates, experiment="f" * 32).of(vector, 1e6, b"first", 1)
    assert len(set(noted)) == 4


def test_vectors_of_a_round_are_kept_until_a_later_one(tmp_path: Path) -> None:
    """Else a group's noise could be drawn anew for a sum in which that of all others is old."""
    updates = NoisedUpdates(tmp_path, "e" * 32, lambda name: None)
    vector = np.ones(4, np.uint64)
    kept = {asked: updates.of(vector, 1e6, asked, 3) for asked in (b"first", b"second")}
    for asked, noised in kept.items():
        assert (updates.of(vector, 1e6, asked, 3) == noised).all()
    updates.of(vector, 1e6, b"third", 4)
    with pytest.raises(RefusedError, match="round 3 is asked for after round 4"):
        updates.of(vector, 1e6, b"first", 3)
    assert len([*(tmp_path / "noised-updates" / ("e" * 32)).iterdir()]) == 1


def test_a_draw_that_is_refused_is_not_made(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise RefusedError("no more")

    updates = NoisedUpdates(tmp_path, "e" * 32, refuse)
    with pytest.raises(RefusedError, match="no more"):
        updates.of(np.ones(4, np.uint64), 1e6, b"first", 1)
    assert not (tmp_path / "noised-updates").exists()


def test_runs_under_one_name_cost_what_each_of_them_asks_for(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server chooses names: a run with epsilon = 100 under that of one with 4 is no gift."""
    noted: list[Draw] = []
    monkeypatch.setattr(secure_group, "spend", lambda node, name, draw: noted.append(draw))
    for epsilon in (4.0, 100.0):
        settings = Settings.from_config(config | NOISED | {"epsilon": epsilon})
        half = cast(GroupHalf, SimpleNamespace(place=tmp_path / "secure-sums" / ("e" * 32)))
        group = SecureGroup(half, settings, "mask", b"", tmp_path)
        noise = GroupNoise.of(settings.federation)
        assert noise
        scale = 1e6 / epsilon
        group.noised_updates(noise).of(np.ones(4, np.uint64), scale, b"%f" % epsilon, 1)
    assert [draw.epsilon for draw in noted] == [4.0, 100.0]
    assert [2 * draw.rho for draw in noted] == [  # of two rounds each
        pytest.approx(rho_of(epsilon, 1e-6)) for epsilon in (4.0, 100.0)
    ]


def test_damaged_memory_is_named(tmp_path: Path) -> None:
    updates = NoisedUpdates(tmp_path, "e" * 32, lambda name: None)
    updates.of(np.ones(4, np.uint64), 1e6, b"first", 1)
    [file] = (tmp_path / "noised-updates" / ("e" * 32)).iterdir()
    file.write_bytes(b"no")
    with pytest.raises(FederationError, match="an update of this node with noise, is damaged"):
        updates.of(np.ones(4, np.uint64), 1e6, b"first", 1)


# ---- What is refused ----


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"privacy": "none"}, "privacy = 'none' does not go with noise = 'groups'"),
        ({"predictor": "factors"}, "one group can change sums of factors without bound"),
        ({"prior": "factors"}, "one group can change sums of factors without bound"),
        ({"purpose": "rewards"}, "sums of answers for rewards have no noise"),
        ({"weighting": "questions"}, "Set weighting = 'uniform'"),
        ({"update-norm": 0.0}, "needs update-norm"),
        ({"epsilon": 0.0}, "epsilon = 0 does not go with noise = 'groups'"),
        ({"noise": "none", "epsilon": 0.0}, "update-norm = 0.5 is for noise = 'groups'"),
    ],
)
def test_a_promise_that_would_be_false_is_refused(
    make_settings: Make, changes: Config, error: str
) -> None:
    make_settings(dict(NOISED))
    with pytest.raises(SettingsError, match=error):
        make_settings(NOISED | changes)


def test_a_train_group_is_not_scored(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by a server that asks for it."""
    from pluralllm_app.federation.roster import Roster

    monkeypatch.setattr(Roster, "scored", lambda self, settings: list(self.groups))
    with pytest.raises(FederationError, match="train groups are not scored, since scores have no"):
        run(config | NOISED)


def test_the_model_is_unlike_one_without_noise(config: Config, finished: Finished) -> None:
    run(config | NOISED)
    assert model(config | NOISED) != model(finished({**SECURE, "weighting": "uniform"}))
