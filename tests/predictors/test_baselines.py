"""Baselines against numbers a reader can redo, and on surveys whose rule is known."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.predictors import uniform as module
from pluralllm_app.predictors.base import Baseline
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.predictors.ridge import PENALTIES
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.metrics import js_alignment
from tests.support.examples import at_most
from tests.support.preferences import preference_set, random_groups

POOLING = [name for name, method in BASELINES.items() if method.pools_answers]


def fit(name: str, *train: PreferenceSet) -> Baseline:
    return BASELINES[name].fit(train)


def predict(baseline: Baseline, group: PreferenceSet, context: Ints, target: Ints) -> Doubles:
    """Shares of the questions at `target` from the answers to those at `context`."""
    return baseline.predict(group.select(context), group.ask(target)).shares


ALDER = preference_set("Alder", {0: [0.6, 0.4], 1: [1, 0, 0]})
BIRCH = preference_set("Birch", {0: [0.4, 0.6], 1: [0, 1, 0]})
CEDAR = preference_set("Cedar", {1: [0, 0, 1]})
DOGWOOD = preference_set("Dogwood", {0: [0.6, 0.4], 1: [0.3, 0.3, 0.4], 2: [0.9, 0.1]})
CONTEXT, TARGET = np.array([0]), np.array([1, 2])


def test_doctest() -> None:
    assert doctest.testmod(module).failed == 0


def test_consensus_is_the_mean_of_the_groups_that_answered() -> None:
    consensus = fit("consensus", ALDER, BIRCH, CEDAR)
    predicted = predict(consensus, DOGWOOD, np.array([1]), np.array([2, 0, 1]))
    # Nobody answered question 2.
    assert predicted == pytest.approx([0.5, 0.5, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])
    two = fit("consensus", ALDER, BIRCH)
    assert predict(two, DOGWOOD, CONTEXT, np.array([1])) == pytest.approx([0.5, 0.5, 0])


def test_weighted_consensus_follows_the_groups_nearest_on_the_context() -> None:
    weighted = fit("weighted-consensus", ALDER, BIRCH, CEDAR)
    # Alder agrees with Dogwood on question 0, Birch is this far off, Cedar did not answer it.
    divergence = 0.4 * math.log(0.8) + 0.6 * math.log(1.2)
    weights = np.exp([0, -divergence / 0.02, -divergence / 2 / 0.02])
    assert weights == pytest.approx([1, 0.3654, 0.6045], abs=1e-4)
    expected = [*weights / weights.sum(), 0.5, 0.5]
    assert predict(weighted, DOGWOOD, CONTEXT, TARGET) == pytest.approx(expected, abs=1e-6)


def test_weighted_consensus_without_a_common_question_is_the_consensus() -> None:
    predicted = [
        predict(fit(name, ALDER, BIRCH, CEDAR), DOGWOOD, np.array([2]), np.array([0, 1]))
        for name in ("weighted-consensus", "consensus")
    ]
    assert predicted[0] == pytest.approx(predicted[1])


@pytest.mark.parametrize("name", POOLING)
def test_a_train_group_is_predicted_without_its_own_answers(name: str) -> None:
    rng = np.random.default_rng(0)
    own, *others = random_groups(rng, 6, np.array([2, 3, 4, 2, 5] * 4), 0.8)
    half = len(own) // 2
    context, target = np.arange(half), np.arange(half, len(own))
    alone = predict(fit(name, *others), own, context, target)
    among = fit(name, own, *others)
    assert predict(among, own, context, target) == pytest.approx(alone)
    stranger = predict(among, replace(own, group="stranger"), context, target)
    assert np.abs(stranger - alone).max() > 0.01


@pytest.mark.parametrize("name", POOLING)
def test_context_that_no_train_group_answered_changes_nothing(name: str) -> None:
    rng = np.random.default_rng(0)
    options = np.array([2, 3, 4, 2, 5] * 4)
    new, *others = random_groups(rng, 6, options, 1.0)
    baseline = fit(name, *(group.select(np.arange(15)) for group in others))
    few, many, target = np.arange(5), np.array([0, 1, 2, 3, 4, 17, 18, 19]), np.arange(5, 15)
    expected = predict(baseline, new, few, target)
    assert predict(baseline, new, many, target) == pytest.approx(expected)


@pytest.mark.parametrize("name", BASELINES)
@at_most(25)
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(2, 6),
    options=st.lists(st.integers(2, 6), min_size=2, max_size=12),
    answered=st.sampled_from([0.1, 0.5, 1.0]),
    own=st.booleans(),
)
def test_predictions_are_distributions(
    name: str, seed: int, groups: int, options: list[int], answered: float, own: bool
) -> None:
    rng = np.random.default_rng(seed)
    new, *others = random_groups(rng, groups, np.array(options), answered)
    baseline = fit(name, *others, *([new] if own else []))
    order = rng.permutation(len(new))
    cut = rng.integers(len(new))  # an empty context is allowed
    target = order[cut:]
    predicted = predict(baseline, new, order[:cut], target)
    counts = new.options[target]
    assert (predicted >= 0).all()
    assert np.add.reduceat(predicted, np.cumsum(counts) - counts) == pytest.approx(1.0)
    known = np.isin(new.questions[target], np.concatenate([p.questions for p in others]))
    if BASELINES[name].pools_answers and not known.all():
        rows = np.repeat(~known, counts)
        assert predicted[rows] == pytest.approx(np.repeat(1 / counts, counts)[rows])


@pytest.mark.parametrize("name", BASELINES)
def test_a_pool_of_the_predicted_group_alone_is_no_pool(name: str) -> None:
    baseline = fit(name, DOGWOOD)
    predicted = predict(baseline, DOGWOOD, CONTEXT, TARGET)
    assert predicted == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5])


def test_low_rank_recovers_a_low_rank_survey() -> None:
    rng = np.random.default_rng(0)
    options = rng.integers(2, 5, 60)
    # The root of every share is a plane through three kinds of group: two latent dimensions.
    kinds = [[rng.dirichlet(np.ones(n)).tolist() for n in options] for _ in range(3)]
    train = [
        preference_set(
            f"train {g}", {q: kinds[g % 3][q] for q in range(60) if rng.random() < 0.7}, options
        )
        for g in range(12)
    ]
    context, target = np.arange(10), np.arange(10, 60)

    def score(name: str) -> float:
        baseline = fit(name, *train)
        means = []
        for kind in kinds:
            new = preference_set("new", dict(enumerate(kind)), options)
            predicted = predict(baseline, new, context, target)
            true = new.select(target).shares
            means.append(js_alignment(predicted, true, new.options[target]).mean())
        return float(np.mean(means))

    assert score("low-rank") > 0.97
    assert score("consensus") < 0.85


def linear_survey(questions: int, noise: float) -> PreferenceSet:
    """A group whose shares are linear in 4-dimensional embeddings, up to the noise."""
    rng = np.random.default_rng(1)
    options = rng.integers(2, 5, questions)
    embeddings = rng.normal(size=(options.sum(), 4)).astype(np.float16)
    values = embeddings.astype(np.float64) @ [0.04, -0.03, 0.02, 0.0]
    values += noise * rng.normal(size=len(values))
    split = np.split(values, np.cumsum(options)[:-1])
    answers = {q: (1 / len(v) + v - v.mean()).tolist() for q, v in enumerate(split)}
    return preference_set("linear", answers, options, embeddings)


def test_ridge_recovers_a_linear_rule() -> None:
    group = linear_survey(60, noise=0.0)
    target = np.arange(30, 60)
    predicted = predict(fit("ridge"), group, np.arange(30), target)
    assert predicted == pytest.approx(group.select(target).shares, abs=1e-3)


def test_ridge_takes_the_penalty_of_the_least_left_out_error() -> None:
    group = linear_survey(14, noise=0.05)
    context, target = np.arange(10), np.arange(10, 14)

    def centred(positions: Ints) -> np.ndarray:
        parts = np.split(group.embeddings.astype(np.float64), group.starts[1:])
        return np.concatenate([parts[q] - parts[q].mean(0) for q in positions])

    def deviation(positions: Ints) -> np.ndarray:
        parts = np.split(group.shares.astype(np.float64), group.starts[1:])
        return np.concatenate([parts[q] - 1 / len(parts[q]) for q in positions])

    def fitted(train: Ints, test: Ints, penalty: float) -> np.ndarray:
        x = centred(train)
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(4), x.T @ deviation(train))
        return np.asarray(centred(test) @ weights)

    def left_out_error(penalty: float) -> float:
        folds = [(np.setdiff1d(context, [q]), np.array([q])) for q in context]
        errors = [fitted(*fold, penalty) - deviation(fold[1]) for fold in folds]
        return float((np.concatenate(errors) ** 2).sum())

    penalties = PENALTIES * (centred(context) ** 2).sum(1).mean()
    best = min(penalties, key=left_out_error)
    assert penalties[-1] < best < penalties[0]
    uniform = np.repeat(1 / group.options[target], group.options[target])
    expected = uniform + fitted(context, target, best)
    predicted = predict(fit("ridge"), group, context, target)
    assert predicted == pytest.approx(expected)
