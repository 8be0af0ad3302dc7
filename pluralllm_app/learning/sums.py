"""Learning by sums over groups: a step of variational Bayes in two halves.

Each group infers its own (z_g, f_g) and contributes sums per option row (`contribution`); the
server adds them up in the order of the groups' names, and updates offsets, loadings and variances
(`maximise`). Nothing else is needed of a group, so that a fit of pooled answers is the same to the
bit. Variational principal components (Bishop 1999) with missing entries (Ilin and Raiko 2010, JMLR
11:1957), with a text prior of the loadings. After each exchange the latents are brought to mean 0
and covariance I by a linear map that the sums take along: without it the steps are many times
smaller (parameter-expanded variational Bayes, Qi and Jaakkola 2006).

In the clear, one group's contribution gives its answers away: cross / gram of a row is its y.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent, Variances

START = 0.05  # standard deviation of the first random loadings
FIRST = 0.01  # first value of each variance
LEAST = 1e-8  # variance
INNER = 4  # updates of loadings and text prior in turn, per exchange


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """What groups contribute, and what their total is. w is the precision of an answer."""

    groups: Doubles  # [1] how many
    answered: Doubles  # [R] how many groups answered the row
    cross: Doubles  # [R, J] of w E[(y - f) (1, z)]
    gram: Doubles  # [R, J, J] of w E[(1, z) (1, z)^T]
    latent: Doubles  # [J, J] of E[(1, z) (1, z)^T], over groups
    residual: Doubles  # [3] over rows: w E[(y - f)^2], w, w times the sampling variance
    own: Doubles  # [2] E|weights of f|^2, and how many weights

    def arrays(self) -> dict[str, Doubles]:
        """By name, for a message."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(**{n: a + b for (n, a), b in _pairs(self, other)})

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(**{n: a - b for (n, a), b in _pairs(self, other)})

    def rotate(self, change: Doubles) -> "Sums":
        """The sums as they would be with (1, z) replaced by `change` [J, J] (1, z)."""
        values = self.arrays()
        values["cross"] = self.cross @ change.T
        values["gram"] = change @ self.gram @ change.T
        values["latent"] = change @ self.latent @ change.T
        return Sums(**values)


def _pairs(a: Sums, b: Sums) -> Iterator[tuple[tuple[str, Doubles], Doubles]]:
    return zip(a.arrays().items(), b.arrays().values(), strict=True)


def first_factors(rows: int, factors: int, landmarks: int, rng: np.random.Generator) -> Factors:
    """Where learning starts: no offsets, small random loadings, nothing a group's own."""
    mean = rng.normal(size=(rows, 1 + factors)) * START
    mean[:, 0] = 0.0
    variances = np.full(1 + factors, FIRST)
    return Factors(
        mean=mean,
        covariance=np.zeros((rows, 1 + factors, 1 + factors)),
        weights=np.zeros((landmarks, 1 + factors)),
        variances=Variances(noise=FIRST, own=0.0, spread=variances, text=variances),
    )


def posterior(
    factors: Factors, answers: Answers, phi: Doubles, prior: Latent
) -> tuple[Latent, Doubles, Doubles]:
    """A group's posterior of (z, weights of f), given all its answers.

    Args:
        phi: [n, M] features of the answered rows.

    Returns:
        Of z; mean [K + M] of (z, weights) and their covariance [K + M, K + M], where
        f = sqrt(own) phi . weights and weights ~ N(0, I).
    """
    size = len(prior.mean)
    weight = 1 / (factors.variances.noise + answers.sampling)
    mean, covariance = factors.mean[answers.rows], factors.covariance[answers.rows]
    design = np.hstack([mean[:, 1:], np.sqrt(factors.variances.own) * phi])
    uncertain = np.tensordot(weight, covariance, 1)
    inverse = np.linalg.inv(prior.covariance)
    precision = design.T @ (design * weight[:, None]) + np.eye(design.shape[1])
    precision[:size, :size] += uncertain[1:, 1:] + inverse - np.eye(size)
    right = design.T @ (weight * (answers.y - mean[:, 0]))
    right[:size] += inverse @ prior.mean - uncertain[1:, 0]
    spread = np.linalg.inv(precision).astype(np.float64, copy=False)
    both = spread @ right
    return Latent(mean=both[:size], covariance=spread[:size, :size]), both, spread


def contribution(
    factors: Factors, answers: Answers, phi: Doubles, prior: Latent
) -> tuple[Sums, Doubles]:
    """One group's share in the sums, and the mean of its posterior; see `posterior`."""
    latent, both, spread = posterior(factors, answers, phi, prior)
    size, (rows, width) = len(latent.mean), factors.mean.shape
    weight = 1 / (factors.variances.noise + answers.sampling)
    features = np.sqrt(factors.variances.own) * phi
    own = features @ both[size:]
    own_variance = ((features @ spread[size:, size:]) * features).sum(1)
    z = np.concatenate([[1.0], latent.mean])
    product = own[:, None] * z  # E[f (1, z)]
    product[:, 1:] += features @ spread[size:, :size]

    answered, cross = np.zeros(rows), np.zeros((rows, width))
    gram = np.zeros((rows, width, width))
    answered[answers.rows] = 1.0
    cross[answers.rows] = weight[:, None] * (answers.y[:, None] * z - product)
    gram[answers.rows] = weight[:, None, None] * latent.second
    square = (answers.y - own) ** 2 + own_variance
    sums = Sums(
        groups=np.ones(1),
        answered=answered,
        cross=cross,
        gram=gram,
        latent=latent.second,
        residual=np.array([weight @ square, weight.sum(), weight @ answers.sampling]),
        own=np.array(
            [both[size:] @ both[size:] + np.trace(spread[size:, size:]), len(both) - size]
        ),
    )
    return sums, both


def to_standard(total: Sums) -> Doubles:
    """The map [J, J] of (1, z) that gives the groups' latents mean 0 and covariance I."""
    mean = total.latent[1:, 0] / total.groups
    covariance = total.latent[1:, 1:] / total.groups - np.outer(mean, mean)
    change = np.eye(len(total.latent))
    if len(mean):
        change[1:, 1:] = np.linalg.inv(np.linalg.cholesky(covariance + LEAST * np.eye(len(mean))))
        change[1:, 0] = -change[1:, 1:] @ mean
    return change


def maximise(factors: Factors, total: Sums, phi: Doubles, learn: bool = True) -> Factors:
    """The next factors, from sums over groups whose latents are standard (`to_standard`).

    v_r ~ N(weights^T phi_r, diag(spread)) and weights ~ N(0, diag(text)): both posteriors are
    updated in turn. With `learn` the variances are, too.

    Args:
        phi: [R, M] features of all option rows of the survey.
    """
    rows, width = factors.mean.shape
    before = factors.variances
    spread, text, weights = before.spread, before.text, factors.weights
    seen = total.answered > 0.5
    features, gram, cross = phi[seen], total.gram[seen], total.cross[seen]
    strength, axes = np.linalg.eigh(features.T @ features)
    strength = np.maximum(strength, 0.0)[:, None]  # [M, 1]
    turned = features @ axes
    for _ in range(INNER):
        covariance = np.linalg.inv(gram + np.diag(1 / spread))
        mean = np.einsum("rij,rj->ri", covariance, cross + features @ weights / spread)
        uncertain = 1 / (strength / spread + 1 / text)  # [M, J] variance of the turned weights
        turned_weights = uncertain * (turned.T @ mean) / spread
        weights = axes @ turned_weights
        if learn and seen.any():
            text = np.maximum((turned_weights**2 + uncertain).mean(0), LEAST)
            error = (mean - features @ weights) ** 2 + np.einsum("rii->ri", covariance)
            spread = error.mean(0) + (strength * uncertain).sum(0) / len(mean)
            spread = np.maximum(spread, LEAST)
    means, covariances = phi @ weights, np.zeros((rows, width, width))
    covariances[:, range(width), range(width)] = spread + (phi @ axes) ** 2 @ uncertain
    means[seen], covariances[seen] = mean, covariance
    noise, own = before.noise, before.own
    if learn and seen.any():
        second = mean[:, :, None] * mean[:, None, :] + covariance
        misfit = total.residual[0] - 2 * (cross * mean).sum() + (gram * second).sum()
        noise = float(max((misfit - total.residual[2]) / total.residual[1], LEAST))
        own = float(own * total.own[0] / total.own[1]) if own and total.own[1] else FIRST
    variances = Variances(noise=noise, own=own, spread=spread, text=text)
    return Factors(mean=means, covariance=covariances, weights=weights, variances=variances)
