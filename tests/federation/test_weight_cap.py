"""No group owns a weighted mean; numbers that a reader can redo."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from pluralllm_app import client_app
from pluralllm_app.federation.messages import ARRAYS, METRICS, record_to_arrays
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.strategies.averages import average
from pluralllm_app.federation.weight_cap import capped, largest_weight
from pluralllm_app.learning.base import Contribution
from pluralllm_app.settings import Settings
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config, Finished
from tests.support.weights import saved_vector


def contributions(*weights: float) -> list[Contribution]:
    """Of groups 0, 1, ..., whose array is their number."""
    return [
        Contribution({"weights": np.array([number], np.float32)}, weight, {})
        for number, weight in enumerate(weights)
    ]


@pytest.mark.parametrize(
    ("weights", "cap", "most"),
    [
        ((10, 10, 1000), 0.5, 20),  # half of 40
        ((10, 30, 1000), 0.5, 40),
        ((10, 10, 20), 0.5, 20),  # exactly half: nothing to do
        ((10, 10, 10), 0.5, 10),
        ((1, 1000, 1000), 0.4, 2),  # two of 2 / 5 each, and a fifth for the third
        ((1, 5, 1000), 0.2, 1),  # a fifth of three cannot be: a third each
        ((10, 1000), 0.5, 1000),  # two groups: nothing is capped
        ((10,), 0.5, 10),
        ((10, 10, 1000), 1.0, 1000),
        ((1, 1, 2**50), 0.5, 2),
    ],
)
def test_what_larger_weights_are_lowered_to(
    weights: tuple[float, ...], cap: float, most: float
) -> None:
    assert largest_weight(weights, cap) == pytest.approx(most)


def test_a_boaster_no_longer_owns_the_mean() -> None:
    sent = contributions(1, 1, 2**50)  # arrays 0, 1, 2
    assert average(sent)["weights"] == 2
    notes: list[tuple[float, float]] = []
    lowered = capped(iter(sent), [1, 1, 2**50], 0.5, lambda *note: notes.append(note))
    assert average(lowered)["weights"] == pytest.approx((0 + 1 + 2 * 2) / 4)
    assert notes == [(2**50, 2)]


def test_the_cap_is_that_of_those_who_reply() -> None:
    sent = contributions(10, 10, 10, 25)
    assert average(capped(iter(sent), [10, 10, 10, 25], 0.5))["weights"] == pytest.approx(
        (0 + 10 + 20 + 75) / 55
    )
    without = [sent[0], sent[1], sent[3]]  # 25 of 45 is more than a half
    shares = [each.weight for each in capped(iter(without), [10, 10, 10, 25], 0.5)]
    assert sorted(shares) == [10, 10, 20]


@pytest.mark.parametrize("cap", [0.5, 0.4, 0.34, 0.25, 0.1])
def test_whatever_the_weights_no_share_is_above_the_cap(cap: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = np.round(rng.pareto(0.5, rng.integers(3, 9)) + 1).tolist()
        found = list(capped(iter(contributions(*weights)), weights, cap))
        total = sum(each.weight for each in found)
        share = max(each.weight for each in found) / total
        assert share <= max(cap, 1 / len(weights)) * (1 + 1e-9)
        # Those that are not lowered keep their proportions, and nobody is raised.
        kept = {int(each.arrays["weights"][0]): each.weight for each in found}
        largest = max(kept.values())
        assert all(kept[place] in (own, largest) for place, own in enumerate(weights))
        assert len(kept) == len(weights)


def test_where_it_cannot_bind_nothing_is_held_back() -> None:
    sent = contributions(27, 27, 18)
    passed = capped(iter(sent), [27, 27, 18], 0.5)
    assert next(iter(passed)) is sent[0]
    assert [id(each) for each in passed] == [id(each) for each in sent[1:]]


@pytest.mark.slow
def test_a_run_is_capped(finished: Finished) -> None:
    def weights(changes: Config) -> np.ndarray:
        out = Path(str(finished({"rounds": 1} | changes)["out"]))
        return saved_vector(out / "model").numpy()

    plain = weights({"weight-cap": 1.0})
    np.testing.assert_array_equal(plain, weights({}))  # 27 of 72 questions are no half of them
    alike = weights({"weight-cap": 0.1})
    assert not np.array_equal(plain, alike)
    uniform = weights({"weighting": "uniform"})
    np.testing.assert_allclose(alike, uniform, rtol=0, atol=1e-6)


def test_a_boaster_in_a_run_counts_for_no_more_than_the_survey_allows(config: Config) -> None:
    config |= {"rounds": 1, "weight-cap": 0.4}
    trained: dict[int, np.ndarray] = {}

    def reply(partition: int, message: Message) -> Message:
        if partition == 2 and "description" in message.content:  # Cedar, with 18 of 20
            said = message.content.config_records["description"]
            said["questions"] = said["pool"] = 30
        if METRICS in message.content and partition < 3:
            if partition == 2:
                message.content.metric_records[METRICS]["num-examples"] = 30
            arrays = record_to_arrays(message.content.array_records[ARRAYS])
            trained[partition] = arrays["weights"]
        return message

    grid = LocalGrid(client_app.app, config, nodes=5, reply=reply)
    lines: list[str] = []
    run_federation(grid, Settings.from_config(config), config, lines.append)
    found = saved_vector(Path(str(config["out"])) / "model").numpy()
    # 27, 27 and 30 of 84 questions: nobody has more than two fifths.
    expected = (27 * trained[0] + 27 * trained[1] + 30 * trained[2]) / 84
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert not any("weight-cap" in line for line in lines)
