"""Noise on a group's answers: how much of it there is, and that it is enough."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.core.segments import Ints
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.accounting import rho_of
from pluralllm_app.privacy.respondents import FINE, Grid, Mechanism, nearest_shares
from pluralllm_app.survey.content import Influence
from tests.support.preferences import preference_set


def answers(shares: list[list[float]]) -> PreferenceSet:
    options = np.array([len(each) for each in shares])
    return preference_set("North", dict(enumerate(shares)), options)


def seeded(seed: int):
    """Draws as `discrete_gaussian` does, but for rounding, and the same again."""
    rng = np.random.default_rng(seed)
    return lambda values, scale: values + np.rint(rng.normal(0, scale, len(values))).astype(int)


def test_the_noise_of_one_question_is_as_by_hand() -> None:
    """Of 100 people one moves two shares by 0.01, sqrt(2) / 100 = 0.01414 in all; at epsilon = 1
    and delta = 1e-6 the noise has 4.531 times that, since rho = 1 / (2 4.531^2) = 0.02436."""
    mechanism = Mechanism.of(Influence(np.array([0.01]), 1), np.array([2]), 1.0, 1e-6)
    assert mechanism.rho == pytest.approx(0.02436, rel=1e-3)
    assert mechanism.deviations == pytest.approx([4.531 * np.sqrt(2) / 100], rel=1e-3)


def test_more_questions_of_one_respondent_need_more_noise() -> None:
    options = np.full(9, 2)
    alone, some, whole = (
        Mechanism.of(Influence(np.full(9, 0.01), most), options, 1.0, 1e-6).deviations
        for most in (1, 4, 9)
    )
    np.testing.assert_allclose(some / alone, 2, rtol=1e-4)
    np.testing.assert_allclose(whole / alone, 3, rtol=1e-4)


def test_noise_goes_with_the_root_of_the_influence() -> None:
    """25 and 100 people: 1 / 25 is 4 times 1 / 100, and its noise 2 times."""
    influence = Influence(np.array([0.04, 0.01]), 2)
    first, second = Mechanism.of(influence, np.array([2, 3]), 1.0, 1e-6).deviations
    assert first / second == pytest.approx(2)
    # rho adds up: sqrt(2) 0.04 / first and sqrt(2) 0.01 / second are what one respondent moves.
    moved = np.array([0.04, 0.01]) * np.sqrt(2) / [first, second]
    assert (moved**2).sum() / 2 == pytest.approx(rho_of(1.0, 1e-6), rel=1e-4)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[list[Ints], list[Ints], np.ndarray, list[int]]:
    """What people answered to questions, and what they did with one of them having lied.

    Returns:
        The options that people chose, by question, -1 for no answer; the same where one of them
        answered otherwise; their weights; the numbers of options.
    """
    people = draw(st.integers(1, 12))
    options = draw(st.lists(st.integers(2, 4), min_size=1, max_size=5))
    weights = draw(st.lists(st.floats(0.1, 10), min_size=people, max_size=people))
    chosen, others = [], []
    for count in options:
        given_ = draw(st.lists(st.integers(-1, count - 1), min_size=people, max_size=people))
        if max(given_) < 0:
            given_[0] = 0
        other = list(given_)
        if given_[0] >= 0:
            other[0] = draw(st.integers(0, count - 1))
        chosen.append(np.array(given_))
        others.append(np.array(other))
    return chosen, others, np.array(weights), options


def counted(chosen: list[Ints], weights: np.ndarray, options: list[int]) -> PreferenceSet:
    shares = []
    for given_, count in zip(chosen, options, strict=True):
        sums = np.bincount(given_[given_ >= 0], weights[given_ >= 0], count)
        shares.append((sums / sums.sum()).tolist())
    return answers(shares)


@given(neighbours())
def test_one_respondent_moves_no_more_than_the_stated_sensitivity(both: tuple) -> None:
    chosen, others, weights, options = both
    answered = np.array([given_ >= 0 for given_ in chosen])
    largest = [weights[own].max() / weights[own].sum() for own in answered]
    influence = Influence(np.array(largest), int(answered.sum(0).max()))
    grid = Grid.of(influence, np.array(options))
    one, other = (grid.rounded(counted(each, weights, options)) for each in (chosen, others))
    moved = np.sqrt(((one - other).astype(float) ** 2).sum())
    assert moved <= grid.sensitivity
    assert grid.sensitivity < 1.001 * FINE


def test_noise_has_the_stated_variance() -> None:
    """2,000 shares of one half of 100 people, with noise of variance 0.0041^2 times 2,000."""
    own = answers([[0.5, 0.5]] * 1000)
    mechanism = Mechanism.of(Influence(np.full(1000, 0.01), 1000), own.options, 8.0, 1e-6)
    noised = mechanism.draw(own, seeded(1)) / np.repeat(mechanism.grid.steps, 2) - 0.5
    assert noised.std() == pytest.approx(mechanism.deviations[0], rel=0.05)
    assert abs(noised.mean()) < 4 * mechanism.deviations[0] / np.sqrt(2000)


def test_noised_answers_are_shares_that_say_how_little_they_tell() -> None:
    own = replace(answers([[0.9, 0.1], [0.2, 0.3, 0.5]]), respondents=np.array([400.0, 400.0]))
    mechanism = Mechanism.of(Influence(np.full(2, 1 / 400), 2), own.options, 1.0, 1e-6)
    read = mechanism.readable(own, mechanism.draw(own, seeded(3)))
    np.testing.assert_allclose(np.add.reduceat(read.shares, [0, 2]), 1, atol=1e-6)
    assert (read.shares >= 0).all()
    assert read.respondents is not None
    assert (read.respondents < 400).all()
    # Of two options, p (1 - p) is 1 / 4 where both are as popular.
    assert read.respondents[0] == pytest.approx(
        1 / (1 / 400 + mechanism.deviations[0] ** 2 / 0.25), rel=1e-6
    )
    assert read.noise is not None
    assert read.noise[0] == pytest.approx(0.25 / mechanism.deviations[0] ** 2, rel=1e-6)
    assert read.select(np.array([1])).noise == read.noise[1]


def test_noised_values_become_the_nearest_shares() -> None:
    """0.9 + 0.3 is 0.2 too much, 0.1 from each; -0.5 stays behind; what sums to 1 stays."""
    values = np.array([0.9, 0.3, -0.5, 0.25, 0.75, -1.0, -1.0])
    shares = nearest_shares(values, np.array([3, 2, 2]))
    np.testing.assert_allclose(shares, [0.8, 0.2, 0, 0.25, 0.75, 0.5, 0.5], atol=1e-12)


def test_values_of_absurd_noise_become_shares() -> None:
    """1e300 and -1e300: nothing is left of 1 beside these."""
    shares = nearest_shares(np.array([1e300, -1e300, -1e300, 1e300]), np.array([2, 2]))
    np.testing.assert_array_equal(shares >= 0, True)
    assert np.isfinite(shares).all()


def test_nothing_of_the_answers_but_their_noised_form_is_read() -> None:
    one, other = answers([[0.9, 0.1]]), answers([[0.2, 0.8]])
    mechanism = Mechanism.of(Influence(np.array([0.1]), 1), np.array([2]), 1.0, 1e-6)
    noised = np.array([500, 300])
    first, second = (mechanism.readable(own, noised) for own in (one, other))
    np.testing.assert_array_equal(first.shares, second.shares)
    np.testing.assert_array_equal(first.respondents, second.respondents)


def test_production_noise_cannot_be_repeated() -> None:
    own = answers([[0.5, 0.5]] * 50)
    mechanism = Mechanism.of(Influence(np.full(50, 0.01), 50), own.options, 1.0, 1e-6)
    assert (mechanism.draw(own) != mechanism.draw(own)).mean() > 0.9
