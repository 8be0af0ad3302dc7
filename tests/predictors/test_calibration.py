"""Intervals whose widths come from counted errors."""

from dataclasses import replace

import numpy as np

from pluralllm_app.predictors.base import LEVELS, Prediction
from pluralllm_app.predictors.factors.calibration import (
    BINS,
    CONTEXTS,
    Calibration,
    count_errors,
)
from pluralllm_app.predictors.factors.model import Belief
from pluralllm_app.predictors.pairs import agreeing
from pluralllm_app.scoring.evaluation import interval_coverage


def belief(y: np.ndarray, variance: float) -> Belief:
    return Belief(mean=y, variance=np.full(len(y), variance), options=np.array([2] * (len(y) // 2)))


def test_errors_are_counted_in_standard_deviations() -> None:
    # Roots that are off by 0.102 and -0.102, where the deviation is 0.1; bins are 0.05 wide.
    shares = np.array([0.702, 0.698]) ** 2
    counts = count_errors(belief(np.array([0.6, 0.8]), 0.01), shares, np.zeros(2))
    assert counts[20] == 1
    assert counts.sum() == 1


def test_noise_that_hides_respondents_is_no_error_of_the_predictor() -> None:
    """Off by 0.102, where the deviation is 0.08 and that of the noise 0.06: 0.1 together."""
    shares = np.array([0.702, 0.698]) ** 2
    said = belief(np.array([0.6, 0.8]), 0.08**2)
    assert count_errors(said, shares, np.full(2, 0.06**2))[20] == 1
    assert count_errors(said, shares, np.zeros(2))[25] == 1  # 1.25 to 1.30 deviations


def test_an_answer_that_is_very_far_off_is_in_the_last_bin() -> None:
    counts = count_errors(belief(np.array([0.6, 0.8]), 1e-6), np.array([1.0, 0.0]), np.zeros(2))
    assert counts[-1] == 1


def test_widths_are_the_quantiles_of_what_was_counted() -> None:
    counts = np.zeros((len(CONTEXTS), BINS))
    counts[:, 10] = 0.85  # 0.50 to 0.55 deviations
    counts[:, 60] = 0.15  # 3.00 to 3.05
    widths = Calibration.of(counts).widths
    np.testing.assert_allclose(widths[:, 0], 0.5 + 0.05 * 0.80 / 0.85)
    np.testing.assert_allclose(widths[:, 1], 3.0 + 0.05 * 0.10 / 0.15)


def test_before_anything_was_counted_widths_are_the_normals() -> None:
    widths = Calibration.of(np.zeros((len(CONTEXTS), BINS))).widths
    np.testing.assert_allclose(widths, [[1.2816, 1.9600]] * len(CONTEXTS), atol=1e-4)


def test_a_number_of_context_questions_that_no_group_has_takes_the_nearest_widths() -> None:
    counts = np.zeros((len(CONTEXTS), BINS))
    counts[1, 10] = counts[2, 40] = 1.0
    widths = Calibration.of(counts).widths
    np.testing.assert_array_equal(widths[0], widths[1])
    np.testing.assert_array_equal(widths[3], widths[2])
    assert (widths[1] < widths[2]).all()


def test_widths_between_two_numbers_of_context_questions_lie_between() -> None:
    calibration = Calibration(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]]))
    assert calibration.at(0).tolist() == [1.0, 2.0]
    assert calibration.at(20).tolist() == [3.0, 6.0]
    assert 2.0 < calibration.at(10)[0] < 3.0
    assert calibration.at(10_000).tolist() == [4.0, 8.0]


def test_counted_widths_cover_what_they_say_where_errors_are_not_normal() -> None:
    rng, count = np.random.default_rng(0), 4000
    level = np.full(count, np.sqrt(0.5))
    said = belief(level, 0.05**2)

    def answers() -> np.ndarray:  # of tails far heavier than a normal distribution's
        first = np.clip(level[::2] + 0.02 * rng.standard_t(2, count // 2), 0.05, 0.99) ** 2
        return np.stack([first, 1 - first], 1).ravel()

    counts = count_errors(said, answers(), np.zeros(count))
    widths = Calibration.of(np.tile(counts, (len(CONTEXTS), 1))).at(20)
    prediction = Prediction(said.shares, said.deviation, said.intervals(widths))
    coverage = interval_coverage([prediction], answers())
    assert coverage is not None
    np.testing.assert_allclose(coverage, LEVELS, atol=0.025)


def test_without_intervals_nothing_is_covered() -> None:
    assert interval_coverage([Prediction(np.array([0.5, 0.5]))], np.array([0.5, 0.5])) is None


def test_a_question_of_two_options_has_one_interval() -> None:
    found = agreeing(
        Prediction(
            np.array([0.3, 0.7, 0.2, 0.3, 0.5]),
            np.array([0.1, 0.2, 0.1, 0.1, 0.1]),
            np.array([[[0.2, 0.5, 0.1, 0.2, 0.3], [0.5, 0.8, 0.3, 0.4, 0.7]]]),
        ),
        np.array([2, 3]),
    )
    assert found.deviation is not None
    assert found.intervals is not None
    # [0.2, 0.5] of the first, and [1 - 0.8, 1 - 0.5] by what is said of the second.
    np.testing.assert_allclose(found.intervals[0, :, :2], [[0.2, 0.5], [0.5, 0.8]])
    np.testing.assert_allclose(found.deviation[:2], np.sqrt((0.01 + 0.04) / 2))
    np.testing.assert_array_equal(found.intervals[0, :, 2:], [[0.1, 0.2, 0.3], [0.3, 0.4, 0.7]])
    skewed = replace(found, intervals=np.array([[[0.1, 0.4, 0, 0, 0], [0.4, 0.8, 1, 1, 1]]]))
    agreed = agreeing(skewed, np.array([2, 3])).intervals
    assert agreed is not None
    np.testing.assert_allclose(agreed[0, :, :2], [[0.15, 0.5], [0.5, 0.85]])
