"""The ceiling that sampling noise sets, against simulations in which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.ceiling import sampling_ceiling
from pluralllm_app.scoring.metrics import alignment
from tests.support.preferences import preference_set


def sampled(truth: np.ndarray, people: int, rng: np.random.Generator) -> PreferenceSet:
    """What `people` people answer to questions with the shares `truth` [Q, options]."""
    shares = rng.multinomial(people, truth) / people
    options = np.full(len(truth), truth.shape[1])
    own = preference_set("North", dict(enumerate(shares.tolist())), options)
    return replace(
        own,
        respondents=np.full(len(truth), float(people)),
        values=np.tile(np.arange(truth.shape[1], dtype=np.float32), len(truth)),
    )


def every(preferences: PreferenceSet):
    return [(np.empty(0, np.int64), np.arange(len(preferences)))]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["jensen-shannon", "wasserstein"])
@pytest.mark.parametrize(("people", "error"), [(30, 0.01), (100, 0.0035), (1000, 0.0015)])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 3.0])  # at 0.3 small shares are common
def test_on_average_it_is_what_the_truth_scores(metric, people, error, concentration):
    rng = np.random.default_rng(1)
    truth = rng.dirichlet(np.full(4, concentration), size=1000)
    own = sampled(truth, people, rng)
    estimate = sampling_ceiling(own, every(own), metric, seed=0)
    fresh = (rng.multinomial(people, truth).ravel() / people for _ in range(20))
    scores = [alignment(metric, truth.ravel(), each, own.options, own.values) for each in fresh]
    assert estimate.mean == pytest.approx(np.mean(scores), abs=error)


def test_two_equal_options_and_many_people():
    """The divergence is that of a normal deviation: E[distance] = sqrt(1 / 8n) E|z|."""
    people = 10_000
    own = preference_set("North", {0: [0.5, 0.5]}, np.array([2]))
    own = replace(own, respondents=np.array([float(people)]))
    scores = [sampling_ceiling(own, every(own), "jensen-shannon", seed).mean for seed in range(50)]
    expected = 1 - np.sqrt(1 / (8 * people)) * np.sqrt(2 / np.pi)
    assert np.mean(scores) == pytest.approx(expected, abs=1e-4)
    assert js_divergence([0.5, 0.5], [0.51, 0.49], np.array([2]))[0] == pytest.approx(
        0.01**2 / (8 * 0.25), rel=0.01
    )


def test_more_people_come_nearer_to_one():
    own = preference_set("North", {0: [0.3, 0.7], 1: [0.2, 0.3, 0.5]})
    means = [
        sampling_ceiling(
            replace(own, respondents=np.full(2, float(people))), every(own), "jensen-shannon", 0
        ).mean
        for people in (1, 10, 100, 1000, 100_000)
    ]
    assert means == sorted(means)
    assert means[-1] > 0.998


def test_all_targets_are_scored_once_and_reproducibly():
    own = preference_set("North", {0: [0.3, 0.7], 1: [0.2, 0.3, 0.5], 2: [1.0, 0.0]})
    partly = replace(own, respondents=np.array([50.0, np.nan, 50.0]))
    draws = [(np.array([2]), np.array([0])), (np.array([1]), np.array([0, 2]))]
    scored = sampling_ceiling(partly, draws, "jensen-shannon", 0)
    assert scored.questions.tolist() == [0, 2]
    again = sampling_ceiling(partly, draws, "jensen-shannon", 0)
    np.testing.assert_array_equal(scored.scores, again.scores)
    assert sampling_ceiling(partly, every(partly), "jensen-shannon", 0).questions.tolist() == [0, 2]
    with pytest.raises(ValueError, match="not known how many people in 'North' were asked"):
        sampling_ceiling(own, every(own), "jensen-shannon", 0)
