"""What noise costs, and how it is distributed."""

import multiprocessing

import numpy as np
import pytest

from pluralllm_app.privacy.accounting import discrete_gaussian, epsilon_of, rho_of


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (1.0, 1e-6), (4.0, 1e-9)])
def test_rho_spends_epsilon_and_no_more(epsilon: float, delta: float) -> None:
    rho = rho_of(epsilon, delta)
    assert 0.999 * epsilon < epsilon_of(rho, delta) <= epsilon
    # Bun and Steinke 2016, proposition 1.3, is a looser bound: rho + 2 sqrt(rho log(1 / delta)).
    assert epsilon < rho + 2 * np.sqrt(rho * np.log(1 / delta)) < 1.25 * epsilon


def test_two_draws_cost_more_than_one_and_less_than_twice() -> None:
    rho = rho_of(1.0, 1e-6)
    assert 1.3 < epsilon_of(2 * rho, 1e-6) < 2.0


@pytest.mark.parametrize(("draws", "epsilon"), [(2, 1.45), (5, 2.38), (10, 3.49), (12, 3.86)])
def test_draws_of_epsilon_1_add_up_as_docs_privacy_says(draws: int, epsilon: float) -> None:
    assert epsilon_of(draws * rho_of(1.0, 1e-6), 1e-6) == pytest.approx(epsilon, abs=0.005)
    assert epsilon_of(0.0, 1e-6) == 0.0


def test_noise_has_the_probabilities_of_the_discrete_gaussian() -> None:
    """Chi-square of 20,000 draws of scale 2; it is above 60 in fewer than one of 10^6 tries."""
    drawn = discrete_gaussian(np.full(20_000, 7), 2.0) - 7
    values = np.arange(-40, 41)
    weights = np.exp(-(values**2) / (2 * 2.0**2))
    expected = 20_000 * weights / weights.sum()
    found = np.bincount(np.clip(drawn, -7, 7) + 7, minlength=15)
    inner = expected[np.abs(values) <= 7]
    inner[[0, -1]] += (20_000 - inner.sum()) / 2
    assert ((found - inner) ** 2 / inner).sum() < 60


def test_processes_forked_from_one_that_drew_noise_draw_each_their_own() -> None:
    """A node forks a process for each message from one that has imported opendp."""

    def draw() -> tuple[int, ...]:
        return tuple(discrete_gaussian(np.zeros(8, np.int64), 2.0**40).tolist())

    def child(found: "multiprocessing.SimpleQueue[tuple[int, ...]]") -> None:
        found.put(draw())

    draw()  # so that the generator is seeded before the forks
    fork = multiprocessing.get_context("fork")
    found = fork.SimpleQueue()
    children = [fork.Process(target=child, args=(found,)) for _ in range(3)]
    for each in children:
        each.start()
    drawn = [found.get() for _ in children]
    for each in children:
        each.join()
    assert len({*drawn, draw()}) == 4
