"""Every strategy on mock replies, with numbers a reader can redo."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity

from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.errors import SettingsError
from pluralllm_app.federation import strategies
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.strategies import STRATEGIES, make_strategy, register
from pluralllm_app.federation.strategies.averages import FedAvg
from pluralllm_app.federation.strategies.flower import WEIGHT, flower_record
from pluralllm_app.federation.strategies.flower import aggregate as flower_aggregate
from pluralllm_app.learning.base import Contribution, Strategy
from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.gpo.network import get_weights
from pluralllm_app.records.reader import read_run
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import ROOT, TRAIN, make_survey, tiny_config
from tests.support.weights import saved_vector

Config = dict[str, Scalar]
Make = Callable[..., Settings]


@pytest.fixture(autouse=True, scope="module")
def _identity() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def update(value: float, weight: float = 1.0, divergence: float = 0.1) -> Contribution:
    metrics = {"loss": 0.0, "js-divergence": divergence}
    return Contribution({"weights": np.full(2, value, np.float32)}, weight, metrics)


def aggregate(
    settings: Settings, updates: list[Contribution], start: float = 0.0, rounds: int = 1
) -> np.ndarray:
    """Weights after `rounds` rounds with the same updates."""
    strategy = make_strategy(settings)
    current: Arrays = {"weights": np.full(2, start, np.float32)}
    carried: Arrays = {}
    for number in range(1, rounds + 1):
        current, carried = strategy.aggregate(number, current, carried, iter(updates))
    return current["weights"]


def updates(*values: float) -> list[Contribution]:
    return [update(value) for value in values]


def chosen(make_settings: Make, strategy: str, **options: Any) -> Settings:
    named = {f"{strategy}.{key.replace('_', '-')}": value for key, value in options.items()}
    return make_settings({"strategy": strategy, "min-train-groups": 7} | named)


def test_fedavg_weighs_by_the_servers_weight(make_settings: Make) -> None:
    result = aggregate(make_settings(), [update(1.0, 30.0), update(4.0, 10.0)])
    assert result == pytest.approx([1.75, 1.75])
    assert result.dtype == np.float32


def test_averages_are_summed_in_float64(make_settings: Make) -> None:
    # In float32, 1 + 2^-25 is 1 and the small terms are lost one by one.
    result = aggregate(make_settings(), updates(1.0, *[2.0**-25] * 63))
    exact = np.float32((1 + 63 * 2.0**-25) / 64)
    assert result.tolist() == [exact, exact]


def test_fedprox_averages_and_sends_mu(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedprox", mu=0.25)
    assert aggregate(settings, updates(1.0, 3.0)) == pytest.approx([2, 2])
    assert make_strategy(settings).group_options == {"proximal-mu": 0.25}


def test_fedavgm_keeps_momentum(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedavgm", learning_rate=1.0, momentum=0.5)
    # Round 1: step 2. Round 2: the mean is reached, so only half the old step is taken: 2 + 1.
    assert aggregate(settings, updates(1.0, 3.0), rounds=1) == pytest.approx([2, 2])
    assert aggregate(settings, updates(1.0, 3.0), rounds=2) == pytest.approx([3, 3])


def test_fedadam_takes_a_normalised_step(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedadam", learning_rate=0.1, beta_1=0.0, beta_2=0.0, tau=1e-9)
    assert aggregate(settings, updates(1.0, 3.0)) == pytest.approx([0.1, 0.1])


def test_fedyogi_takes_a_normalised_step(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedyogi", learning_rate=0.1, beta_1=0.0, beta_2=0.0, tau=1e-9)
    assert aggregate(settings, updates(1.0, 3.0)) == pytest.approx([0.1, 0.1])


def test_fedadagrad_adds_up_squares(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedadagrad", learning_rate=0.1, tau=1e-9)
    first = aggregate(settings, updates(1.0, 3.0))
    assert first == pytest.approx([0.1, 0.1])
    # Round 2: delta 1.9, v = 2^2 + 1.9^2.
    second = aggregate(settings, updates(1.0, 3.0), rounds=2)
    assert second == pytest.approx([0.1 + 0.1 * 1.9 / np.sqrt(4 + 1.9**2)] * 2)


def test_fedmedian_ignores_how_far_an_outlier_is(make_settings: Make) -> None:
    assert aggregate(chosen(make_settings, "fedmedian"), updates(1, 2, 900)) == pytest.approx(
        [2, 2]
    )


def test_trimmed_average_cuts_both_ends(make_settings: Make) -> None:
    settings = chosen(make_settings, "fedtrimmedavg", fraction=0.2)
    assert aggregate(settings, updates(-50, 1, 2, 3, 900)) == pytest.approx([2, 2])


def test_krum_takes_the_update_nearest_to_others(make_settings: Make) -> None:
    settings = chosen(make_settings, "krum", malicious=1)
    assert aggregate(settings, updates(1.0, 1.2, 1.3, 5.0, 90.0))[0] in np.float32([1.0, 1.2, 1.3])


def test_multikrum_averages_the_nearest(make_settings: Make) -> None:
    settings = chosen(make_settings, "multikrum", malicious=1, selected=3)
    assert aggregate(settings, updates(1.0, 1.2, 1.4, 8.0, 90.0)) == pytest.approx([1.2, 1.2])


def test_bulyan_survives_one_liar_of_seven(make_settings: Make) -> None:
    result = aggregate(chosen(make_settings, "bulyan", malicious=1), updates(1, 1, 1, 1, 1, 1, 900))
    assert result == pytest.approx([1, 1])


def test_qfedavg_moves_more_towards_the_worse_off(make_settings: Make) -> None:
    def result(q: float) -> float:
        settings = chosen(make_settings, "qfedavg", q=q)
        return float(aggregate(settings, [update(-1.0, 1, 0.01), update(1.0, 1, 0.5)])[0])

    assert result(0.0) == pytest.approx(0.0, abs=1e-6)  # q = 0 is FedAvg
    assert result(1.0) > 0


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        (
            "fedavgm",
            {"learning_rate": 0.5, "momentum": 0.9},
            flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.9, weighted_by_key=WEIGHT),
        ),
        (
            "fedadam",
            {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.01},
            flower.FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=0.01, weighted_by_key=WEIGHT),
        ),
        (
            "fedyogi",
            {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.01},
            flower.FedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=0.01, weighted_by_key=WEIGHT),
        ),
        (
            "fedadagrad",
            {"learning_rate": 0.1, "tau": 0.01},
            flower.FedAdagrad(eta=0.1, tau=0.01, weighted_by_key=WEIGHT),
        ),
        (
            "qfedavg",
            {"q": 1.5, "lipschitz": 0.25},
            flower.QFedAvg(
                client_learning_rate=4.0,
                q=1.5,
                train_loss_key="js-divergence",
                weighted_by_key=WEIGHT,
            ),
        ),
    ],
)
def test_a_step_of_the_server_is_flowers_to_the_bit(
    make_settings: Make, name: str, options: dict[str, float], theirs: Any
) -> None:
    ours, carried = make_strategy(chosen(make_settings, name, **options)), {}
    rng = np.random.default_rng(0)
    current = {"weights": rng.normal(size=9).astype(np.float32)}
    for number in (1, 2, 3):
        # One update, which is its own average: Flower averages in float32.
        contribution = update(0.0, divergence=0.3)
        contribution = replace(contribution, arrays={"weights": rng.normal(size=9).astype("f")})
        messages = name in ("fedavgm", "qfedavg")
        theirs.current_arrays = flower_record(current) if messages else current
        expected = flower_aggregate(theirs, number, [contribution])["weights"]
        found, carried = ours.aggregate(number, current, carried, iter([contribution]))
        assert found["weights"].tolist() == expected.tolist()
        assert found["weights"].dtype == expected.dtype
        current = {"weights": expected.astype(np.float32)}


@pytest.mark.parametrize("name", STRATEGIES)
def test_weights_are_refused_where_they_change_nothing(make_settings: Make, name: str) -> None:
    values = (0.1, 0.2, 0.4, 0.8, 1.0, 1.1, 9.0)

    def result(*weights: float) -> list[float]:
        given = [update(*pair) for pair in zip(values, weights, strict=True)]
        settings = make_settings({"strategy": name, "min-train-groups": 7})
        return list(aggregate(settings, given))

    matter = result(1, 1, 1, 1, 1, 1, 1) != result(1, 2, 3, 4, 5, 6, 7)
    assert matter == STRATEGIES[name].weighs


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_updates_that_agree(make_settings: Make, name: str) -> None:
    result = aggregate(
        make_settings({"strategy": name, "min-train-groups": 7}), updates(*[0.5] * 7), start=0.5
    )
    assert result == pytest.approx([0.5, 0.5])


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the strategy that the documentation shows, "root", to those there are."""
    page = (ROOT / "docs" / "settings.md").read_text()
    section = page[page.index("## A strategy of your own") :]
    snippet = section[section.index("```python") + len("```python") : section.index("\n```\n")]
    monkeypatch.setattr(strategies, "STRATEGIES", dict(STRATEGIES))
    exec(snippet, {"__name__": "own_strategy"})


@pytest.mark.usefixtures("root")
def test_the_documented_strategy_works(make_settings: Make) -> None:
    settings = make_settings({"strategy": "root"})
    result = aggregate(settings, [update(1.0, 9.0), update(6.0, 1.0)])
    assert result == pytest.approx([2.25, 2.25])  # weights 3 and 1


class Forgetful(FedAvg):
    """Holds state that no checkpoint would have."""

    def aggregate(self, *arguments: Any) -> tuple[Arrays, Arrays]:
        self.history = [*getattr(self, "history", []), arguments]  # type: ignore[attr-defined]
        return super().aggregate(*arguments)


@dataclass(frozen=True)
class Hoarder(FedAvg):
    """Holds state in what looks like an option."""

    history: list[Any] = field(default_factory=list)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [(Forgetful, "must be a frozen dataclass"), (Hoarder, "field 'history'.* is no option")],
)
def test_a_strategy_that_could_hold_state_of_its_own_cannot_be_registered(
    strategy: type[Strategy], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        register("own", strategy)
    assert "own" not in STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_says_whether_it_needs_single_updates(make_settings: Make, name: str) -> None:
    """Where it does not, any updates of the same mean and weight give the same."""
    settings = make_settings({"strategy": name, "min-train-groups": 7})
    spread = [update(value, divergence=0.1 * value) for value in (0, 1, 2, 3, 4, 5, 20)]
    alike = [update(5.0, divergence=0.5)] * 7
    same = np.allclose(aggregate(settings, spread), aggregate(settings, alike))
    assert same == (not STRATEGIES[name].needs_individual_updates)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey with as many train groups as any strategy needs by default."""
    return make_survey(
        tmp_path_factory.mktemp("crowd") / "survey", train=[*TRAIN, "Fir", "Gum", "Holly", "Ilex"]
    )


def trained(config: Config, crowd: PreparedSurvey, out: str, **overrides: Scalar) -> np.ndarray:
    """Weights after a run of two rounds in this process."""
    config = config | {"survey": str(crowd.path), "out": f"{config['out']}-{out}"}
    config |= {"min-train-groups": 7, "evaluate-every": 2, **overrides}
    grid = InProcessGrid(client_app.app, config, nodes=len(crowd.groups))
    run_federation(grid, Settings.from_config(config), config)
    run = read_run(Path(str(config["out"])))
    assert run is not None
    assert run.status == "completed"
    return saved_vector(Path(str(config["out"])) / "model").numpy()


@pytest.fixture(scope="module")
def average(crowd: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Weights after the same run with FedAvg."""
    return trained(tiny_config(crowd, tmp_path_factory.mktemp("average") / "run"), crowd, "fedavg")


@pytest.mark.slow
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", [*STRATEGIES, "root"])
def test_every_strategy_trains(
    config: Config, crowd: PreparedSurvey, average: np.ndarray, name: str
) -> None:
    model = initial_model(crowd.dim, Settings.from_config(config))
    result = trained(config, crowd, name, strategy=name)
    assert np.isfinite(result).all()
    assert (result != get_weights(model).numpy()).mean() > 0.5
    if name != "fedavg":
        assert (result != average).any()


@pytest.mark.slow
def test_fedprox_without_its_term_is_fedavg(
    config: Config, crowd: PreparedSurvey, average: np.ndarray
) -> None:
    for mu in (0.0, 1.0):
        result = trained(config, crowd, f"mu-{mu:g}", strategy="fedprox", **{"fedprox.mu": mu})
        assert (result == average).all() == (mu == 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"fedprox.mu": -1.0}, "fedprox.mu = -1.0 must be at least 0"),
        ({"foo.bar": 1.0}, "unknown setting 'foo.bar'"),
        ({"strategy": "fedavgg"}, "did you mean 'fedavg'"),
        ({"strategy": "fedprox", "fedprox.mu": -1.0}, "fedprox.mu = -1.0 must be at least 0"),
        ({"strategy": "fedtrimmedavg", "fedtrimmedavg.fraction": 0.5}, "below 0.5"),
        ({"strategy": "krum", "min-train-groups": 4}, "set min-train-groups = 5 or more"),
        ({"strategy": "bulyan", "min-train-groups": 6}, "set min-train-groups = 7 or more"),
        (
            {"strategy": "multikrum", "multikrum.selected": 6, "min-train-groups": 6},
            "set min-train-groups = 7 or more",
        ),
        ({"strategy": "fedmedian", "weighting": "uniform"}, "changes nothing of strategy"),
    ],
)
def test_wrong_options_are_named(
    make_settings: Make, override: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_strategy(make_settings(override))
    assert message in str(caught.value)
