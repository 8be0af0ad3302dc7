"""The factor model on numbers that a reader can redo, and against brute force."""

from dataclasses import replace

import numpy as np
import pytest

from pluralllm_app.core.segments import Doubles, Ints, segment_centred
from pluralllm_app.learning.description_sums import Regression
from pluralllm_app.learning.self_check import Others
from pluralllm_app.learning.sums import (
    Sums,
    TextFeatures,
    contribution,
    first_factors,
    maximise,
    posterior,
    to_standard,
)
from pluralllm_app.predictors.factors.model import (
    Answers,
    Factors,
    Latent,
    Variances,
    uniform,
)
from pluralllm_app.predictors.factors.posterior import given
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

Groups = dict[str, Answers]


def survey(
    questions: int = 12, dim: int = 6, seed: int = 0
) -> tuple[OptionRows, TextKernel, Doubles]:
    rng = np.random.default_rng(seed)
    options = rng.integers(2, 5, questions)
    text = OptionRows.of(rng.normal(size=(options.sum(), dim)), options)
    kernel = TextKernel.fit(text, 40)
    return text, kernel, kernel.features(text)


def random_shares(options: Ints, rng: np.random.Generator) -> Doubles:
    return np.concatenate([rng.dirichlet(np.full(count, 2.0)) for count in options])


def groups(text: OptionRows, count: int = 4, seed: int = 1) -> Groups:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(text))
    return {f"g{i}": Answers.of(rows, text, random_shares(text.options, rng)) for i in range(count)}


def total(state: Factors, answers: Groups, phi: Doubles) -> Sums:
    """The groups' sums, added in the order of their names."""
    prior = Latent.standard(state.mean.shape[1] - 1)
    parts = [
        contribution(state, own, phi[own.rows], prior).sums(len(phi)).pack()
        for _, own in sorted(answers.items())
    ]
    return Sums.unpack({name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]})


def fit(answers: Groups, phi: Doubles, factors: int = 2, rounds: int = 3) -> Factors:
    features = TextFeatures(phi)
    state = first_factors(len(phi), factors, 1 + factors, phi.shape[1], np.random.default_rng(0))
    for _ in range(rounds):
        sums = total(state, answers, phi)
        state = maximise(state, sums.rotate(to_standard(sums)), features)
    return state


def test_the_kernel_by_hand() -> None:
    # Two questions of two options, at a right angle: q . q' = 0, o . o' = 0.
    x = np.array([[2.0, 1.0, 0, 0], [2.0, -1.0, 0, 0], [0, 0, 2.0, 1.0], [0, 0, 2.0, -1.0]])
    rows = OptionRows.of(x, np.array([2, 2]))
    found = TextKernel(rows.directions).covariance(rows, rows)
    # Within a question 1 and exp(-2), centred +-(1 - exp(-2)) / 2; between questions all alike, 0.
    a = (1 - np.exp(-2)) / 2
    np.testing.assert_allclose(found, np.kron(np.eye(2), [[a, -a], [-a, a]]), atol=1e-7)


def test_features_with_all_landmarks_give_the_kernel() -> None:
    text, kernel, phi = survey()
    full = kernel.covariance(text, text)
    np.testing.assert_allclose(phi @ phi.T, full, atol=1e-4)
    np.testing.assert_allclose(kernel.variance(text), np.diag(full), atol=1e-6)


def test_centring_takes_the_mean_of_each_question() -> None:
    values = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [7.0, 5.0], [9.0, 5.0]])
    expected = [[-1.0, -2.0], [1.0, 2.0], [-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    assert segment_centred(values, np.array([2, 3])).tolist() == expected


def test_the_mean_of_two_groups_by_hand() -> None:
    # No factors, no text, next to no prior: the offset is the mean of the groups' y.
    text, _, phi = survey()
    answers = groups(text, 2)
    state = first_factors(len(text), 0, 1, phi.shape[1], np.random.default_rng(0))
    sums = total(state, answers, phi)
    flat = Variances(noise=0.01, own=0.0, spread=np.array([1e6]), text=np.array([1e-8]))
    state = maximise(replace(state, variances=flat), sums, TextFeatures(phi), learn=False)
    found = state.mean[:, 0]
    np.testing.assert_allclose(found, (answers["g0"].y + answers["g1"].y) / 2, atol=1e-6)


def test_the_posterior_is_that_of_one_dense_gaussian() -> None:
    text, _, phi = survey()
    answers = groups(text)
    state = fit(answers, phi)
    state = replace(state, covariance=0 * state.covariance)
    latent, both, _ = posterior(state, answers["g0"], phi, Latent.standard(2))
    loadings, v = state.mean[:, 1:], state.variances
    dense = loadings @ loadings.T + v.own * phi @ phi.T + v.noise * np.eye(len(text))
    right = np.linalg.solve(dense, answers["g0"].y - state.mean[:, 0])
    np.testing.assert_allclose(latent.mean, loadings.T @ right, atol=1e-9)
    covariance = np.eye(2) - loadings.T @ np.linalg.solve(dense, loadings)
    np.testing.assert_allclose(latent.covariance, covariance, atol=1e-9)
    own = np.sqrt(v.own) * phi @ both[2:]
    np.testing.assert_allclose(own, v.own * phi @ phi.T @ right, atol=1e-9)


def test_a_prediction_is_that_of_one_dense_gaussian() -> None:
    text, kernel, phi = survey()
    answers = groups(text)
    state = fit(answers, phi)
    n = int(text.options[:4].sum())
    rest = OptionRows(text.directions[n:], text.options[4:])
    all_answers = answers["g0"]
    context = all_answers.select(np.arange(4))
    found = given(state, kernel, context, Latent.standard(2)).believe(all_answers.rows[n:], rest)
    loadings, v = state.mean[:, 1:], state.variances
    dense = loadings @ loadings.T + v.own * kernel.covariance(text, text)
    dense += np.diag(np.einsum("rii->r", state.covariance) + v.noise)
    # The posterior variance of loadings counts once for the offset and once for each factor.
    gain = np.linalg.solve(dense[:n, :n], dense[:n, n:]).T
    mean = state.mean[n:, 0] + gain @ (context.y - state.mean[:n, 0]) + uniform(rest)
    np.testing.assert_allclose(found.mean, mean, atol=1e-7)
    variance = np.diag(dense[n:, n:] - gain @ dense[:n, n:])
    np.testing.assert_allclose(found.variance, variance, atol=1e-7)
    starts = np.cumsum(rest.options) - rest.options
    np.testing.assert_allclose(np.add.reduceat(found.shares, starts), 1)


@pytest.mark.slow
def test_noise_and_loadings_of_a_known_model_are_recovered() -> None:
    text, _, phi = survey(60)  # answered by 60 groups, with one factor
    rng, n = np.random.default_rng(3), len(text)
    loadings, offsets = rng.normal(size=n) * 0.1, rng.normal(size=n) * 0.1
    made = {}
    for g in range(60):
        y = offsets + loadings * rng.normal() + rng.normal(size=n) * 0.05
        none = np.zeros(n)
        made[f"g{g:02}"] = Answers(rows=np.arange(n), text=text, y=y, sampling=none, noise=none)
    state = fit(made, phi, 1, 30)
    assert state.variances.noise == pytest.approx(0.05**2, rel=0.1)
    assert abs(np.corrcoef(state.mean[:, 1], loadings)[0, 1]) > 0.97
    assert np.mean(state.mean[:, 1] ** 2) == pytest.approx(np.mean(loadings**2), rel=0.15)


def test_leaving_a_group_out_leaves_the_factors_of_the_others() -> None:
    text, _, phi = survey()
    answers, features = groups(text), TextFeatures(phi)
    prior = Latent.standard(2)
    state = fit(answers, phi)
    part = contribution(state, answers["g3"], phi, prior)
    sums = total(state, answers, phi)
    change = to_standard(sums)
    # With the text prior held, a row's factors depend on the sums of that row alone.
    held = replace(state.variances, text=np.full(3, 1e-8))
    state = replace(state, variances=held, weights=np.zeros_like(state.weights))
    after = maximise(state, sums.rotate(change), features, learn=False)
    rest = {name: own for name, own in answers.items() if name != "g3"}
    others = total(state, rest, phi).rotate(change)
    expected = maximise(state, others, features, learn=False)
    regression = Regression.none(2, 3)
    found = Others(after, regression, honest=False).without(part, regression.sums, change)
    assert found.honest
    np.testing.assert_allclose(found.factors.mean, expected.mean, atol=1e-4)
    np.testing.assert_allclose(found.factors.covariance, expected.covariance, atol=1e-9)


def test_what_one_group_sends_gives_its_answers_away() -> None:
    """The sentence that a run prints: without a group's own deviations, cross / gram is y."""
    text, _, phi = survey()
    answers = groups(text)
    state = first_factors(len(text), 2, 3, phi.shape[1], np.random.default_rng(0))
    sums = contribution(state, answers["g1"], phi, Latent.standard(2)).sums(len(text))
    np.testing.assert_allclose(sums.cross[:, 0] / sums.gram[:, 0, 0], answers["g1"].y, atol=1e-12)


def test_small_samples_count_for_less() -> None:
    text, _, _ = survey(2)
    p = random_shares(text.options, np.random.default_rng(0))
    few, many, unknown = (
        Answers.of(np.arange(len(text)), text, p, np.full(2, count)).sampling
        for count in (10.0, 1000.0, np.nan)
    )
    assert (few > 50 * many).all()
    # The root of a share p of n people has variance (1 - p) / 4 n, to first order.
    np.testing.assert_allclose(many, (1 - p) / 4000, rtol=0.15)
    assert not unknown.any()


@pytest.mark.parametrize("embeddings", ["alike", "constant within a question", "zero", "random"])
@pytest.mark.parametrize("count", [1, 3])
def test_degenerate_input_gives_finite_predictions(embeddings: str, count: int) -> None:
    rng, options = np.random.default_rng(0), np.array([2, 3, 2, 4, 10])
    x = rng.normal(size=(options.sum(), 8))
    if embeddings == "alike":
        x[:] = x[0]
    elif embeddings == "constant within a question":
        x = np.repeat(x[:5], options, axis=0)
    elif embeddings == "zero":
        x[:] = 0
    text = OptionRows.of(x.astype(np.float16), options)
    kernel = TextKernel.fit(text, 10)
    phi = kernel.features(text)
    # Shares of 0 and 1, and questions that only the first group answered.
    p = np.array([1.0, 0, 0, 0.5, 0.5, 0.3, 0.7, 0, 0, 0, 1.0, *[0.1] * 10])
    answers = {}
    for g in range(count):
        known = len(options) if g == 0 else 3
        some = OptionRows(text.directions[: options[:known].sum()], options[:known])
        answers[f"g{g}"] = Answers.of(np.arange(len(some)), some, p[: len(some)])
    state = fit(answers, phi, count - 1, 20)
    nothing = OptionRows(text.directions[:0], options[:0])
    for context in (answers["g0"], Answers.of(np.arange(0), nothing, np.zeros(0))):
        latent = Latent.standard(count - 1)
        found = given(state, kernel, context, latent).believe(np.arange(len(text)), text)
        for values in (found.shares, found.deviation, found.intervals(np.array([1.3]))):
            assert np.isfinite(values).all()


@pytest.mark.parametrize("distance", [0.0, 1e-7, 1e-4, 1e-2])
def test_landmarks_of_many_questions_that_are_nearly_alike(distance: float) -> None:
    rng, options = np.random.default_rng(0), np.full(200, 3)
    base = np.tile(rng.normal(size=(3, 8)), (200, 1))
    x = base + distance * rng.normal(size=base.shape)
    text = OptionRows.of(x, options)
    kernel = TextKernel.fit(text, 300)
    phi = kernel.features(text)
    assert np.isfinite(phi).all()
    np.testing.assert_allclose(phi @ phi.T, kernel.covariance(text, text), atol=0.02)
