"""What descriptions of groups say about their latents, and how far that is trusted."""

import numpy as np
import pytest

from pluralllm_app.core.segments import Doubles, Floats
from pluralllm_app.learning.description_sums import (
    PENALTIES,
    DescriptionSums,
    Regression,
    coefficients,
)
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior, regressor
from pluralllm_app.predictors.factors.model import Latent

DIM, FACTORS = 5, 2


def latents(count: int, told: bool, rng: np.random.Generator) -> tuple[Floats, list[Latent]]:
    """Descriptions, and latents whose first factor they tell, or not."""
    texts = rng.normal(size=(count, DIM)).astype(np.float32)
    units = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    means = rng.normal(size=(count, FACTORS))
    if told:
        means[:, 0] = np.sqrt(DIM) * units[:, 0] + 0.1 * means[:, 0]
    return texts, [Latent(mean=mean, covariance=0.01 * np.eye(FACTORS)) for mean in means]


def added(parts: list[DescriptionSums]) -> DescriptionSums:
    packed = [part.pack() for part in parts]
    return DescriptionSums.unpack(
        {name: np.sum([each[name] for each in packed], axis=0) for name in packed[0]}
    )


def learned(texts: Floats, found: list[Latent]) -> Regression:
    """Two rounds: in the second, groups check what was learned from the others in the first."""
    parts = [
        DescriptionSums.of(text, DIM, latent.second)
        for text, latent in zip(texts, found, strict=True)
    ]
    total = added(parts)
    agreement: Doubles = np.zeros((3, len(PENALTIES), FACTORS))
    for text, latent, part in zip(texts, found, parts, strict=True):
        others = Regression.fit(total - part, np.zeros_like(agreement), 0, np.ones(FACTORS))
        agreement += others.agreement_of(text, latent)
    return Regression.fit(total, agreement, len(found), np.ones(FACTORS))


def test_a_description_that_tells_something_moves_the_prior() -> None:
    rng = np.random.default_rng(0)
    prior = learned(*latents(40, True, rng)).prior
    new, (latent, *_) = latents(1, True, rng)
    assert prior.latent(new[0]).mean[0] == pytest.approx(latent.mean[0], abs=0.4)
    assert prior.variance[0] < 0.3


def test_descriptions_that_tell_nothing_hardly_move_it() -> None:
    moved, left = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        prior = learned(*latents(30, False, rng)).prior
        new, _ = latents(20, False, rng)
        moved.append(np.mean([prior.latent(text).mean ** 2 for text in new]))
        left.append(prior.variance.mean())
    assert np.mean(moved) < 0.05  # of a latent whose variance is 1
    assert np.mean(left) > 0.95


def test_of_a_handful_of_groups_one_left_out_is_not_predicted_by_their_sum() -> None:
    # Latents that sum to 0: without an intercept, each is minus the sum of the others.
    rng = np.random.default_rng(1)
    texts, found = latents(4, False, rng)
    middle = np.mean([latent.mean for latent in found], axis=0)
    found = [Latent(mean=each.mean - middle, covariance=each.covariance) for each in found]
    assert learned(texts, found).variance.min() > 0.5


def test_a_group_without_a_description_keeps_the_standard_prior() -> None:
    prior = DescriptionPrior(np.ones((1 + DIM, FACTORS)), np.full(FACTORS, 0.5))
    latent = prior.latent(None)
    assert latent.mean.tolist() == [0.0, 0.0]
    assert latent.covariance.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    nothing = DescriptionSums.of(None, DIM, np.ones((3, 3)))
    assert not any(array.any() for array in nothing.pack().values())


def test_an_embedding_of_zero_has_no_direction() -> None:
    assert regressor(np.zeros(DIM, np.float32)).tolist() == [1.0, *[0.0] * DIM]


def test_ridge_by_hand() -> None:
    # One dimension, descriptions +1 and -1, latents 3 and -1: mean 1, slope 4 / (2 + penalty).
    texts = np.array([[1.0], [-1.0]], np.float32)
    parts = [
        DescriptionSums.of(text, 1, np.array([[1.0, z], [z, z * z]]))
        for text, z in zip(texts, (3.0, -1.0), strict=True)
    ]
    found = coefficients(added(parts))
    np.testing.assert_allclose(found[:, 0, 0], 1.0)
    np.testing.assert_allclose(found[:, 1, 0], 4 / (2 + PENALTIES))


def test_turning_the_latents_turns_the_sums() -> None:
    rng = np.random.default_rng(2)
    texts, found = latents(3, False, rng)
    change = np.eye(3)
    change[1:, 1:], change[1:, 0] = rng.normal(size=(2, 2)), rng.normal(size=2)
    turned = [
        Latent(
            mean=change[1:, 1:] @ each.mean + change[1:, 0],
            covariance=change[1:, 1:] @ each.covariance @ change[1:, 1:].T,
        )
        for each in found
    ]

    def sums(of: list[Latent]) -> DescriptionSums:
        return added(
            [
                DescriptionSums.of(text, DIM, each.second)
                for text, each in zip(texts, of, strict=True)
            ]
        )

    for ours, theirs in zip(
        sums(found).rotate(change).pack().values(), sums(turned).pack().values(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
