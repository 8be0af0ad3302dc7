"""Learning by sums over groups: a step of variational Bayes in two halves.

Each group infers its own (z_g, f_g) and contributes sums per option row (`contribution`); the
server adds them up in the order of the groups' names, and updates offsets, loadings and variances
(`maximise`). Nothing else is needed of a group, so that a fit of pooled answers is the same but for
rounding. Variational principal components (Bishop 1999) with missing entries (Ilin and Raiko 2010,
JMLR 11:1957), with a text prior of the loadings. After each exchange the latents are brought to
mean 0 and covariance I by a linear map that the sums take along: without it the steps are many
times smaller (parameter-expanded variational Bayes, Qi and Jaakkola 2006).

In the clear, one group's contribution gives its answers away: cross / gram of a row is its y.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.segments import Bools, Doubles, Ints
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent, Variances
from pluralllm_app.predictors.factors.packing import pack_symmetric, unpack_symmetric

START = 0.05  # standard deviation of the first random loadings
FIRST = 0.01  # first value of each variance
DECAY_GROUPS = 12.0  # with so many groups, a factor's variances start at 1 / e of the last one's
LEAST = 1e-8  # variance
_SYMMETRIC = ("gram", "latent")
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
    own: Doubles  # [2] own scale times E|weights of f|^2, and how many weights

    def pack(self) -> dict[str, Doubles]:
        """By name, for a message; of symmetric matrices the upper triangles."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return arrays | {name: pack_symmetric(arrays[name]) for name in _SYMMETRIC}

    @classmethod
    def unpack(cls, arrays: Mapping[str, Doubles]) -> "Sums":
        """Undo `pack`; other arrays are left alone."""
        found = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**found | {name: unpack_symmetric(found[name]) for name in _SYMMETRIC})

    def rotate(self, change: Doubles) -> "Sums":
        """The sums as they would be with (1, z) replaced by `change` [J, J] (1, z)."""
        return replace(
            self,
            cross=self.cross @ change.T,
            gram=change @ self.gram @ change.T,
            latent=change @ self.latent @ change.T,
        )


def first_factors(
    rows: int, factors: int, groups: int, landmarks: int, rng: np.random.Generator
) -> Factors:
    """Where learning starts: no offsets, small random loadings, nothing a group's own.

    Each factor starts smaller than the one before, the more so the fewer `groups` there are. Were
    all alike, as many factors as groups would first share out what is noise, and be pruned slowly.
    """
    scale = np.exp(-DECAY_GROUPS / groups * np.maximum(np.arange(1 + factors) - 1, 0))
    mean = rng.normal(size=(rows, 1 + factors)) * START * np.sqrt(scale)
    mean[:, 0] = 0.0
    return Factors(
        mean=mean,
        covariance=np.zeros((rows, 1 + factors, 1 + factors)),
        weights=np.zeros((landmarks, 1 + factors)),
        variances=Variances(noise=FIRST, own=0.0, spread=FIRST * scale, text=FIRST * scale),
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
    inverted = np.linalg.inv(precision)
    spread: Doubles = (inverted + inverted.T) / 2
    both = spread @ right
    return Latent(mean=both[:size], covariance=spread[:size, :size]), both, spread


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What one group adds to the sums, for the n option rows that it answered."""

    rows: Ints  # [n] in the survey's option table
    weight: Doubles  # [n] precision of each answer, w
    cross: Doubles  # [n, J] of w E[(y - f) (1, z)]
    second: Doubles  # [J, J] of E[(1, z) (1, z)^T]
    residual: Doubles  # [3] see `Sums`
    own: Doubles  # [2] see `Sums`

    @property
    def latent(self) -> Latent:
        """What is believed of the group's z."""
        mean = self.second[0, 1:]
        return Latent(mean=mean, covariance=self.second[1:, 1:] - np.outer(mean, mean))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be kept."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Part":
        """Undo `arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def sums(self, size: int) -> Sums:
        """As a part of sums over `size` option rows."""
        width = len(self.second)
        answered, cross = np.zeros(size), np.zeros((size, width))
        gram = np.zeros((size, width, width))
        answered[self.rows] = 1.0
        cross[self.rows] = self.cross
        gram[self.rows] = self.weight[:, None, None] * self.second
        return Sums(
            groups=np.ones(1),
            answered=answered,
            cross=cross,
            gram=gram,
            latent=self.second,
            residual=self.residual,
            own=self.own,
        )


def contribution(factors: Factors, answers: Answers, phi: Doubles, prior: Latent) -> Part:
    """One group's part of the sums; see `posterior` for the arguments."""
    latent, both, spread = posterior(factors, answers, phi, prior)
    size = len(latent.mean)
    scale = factors.variances.own or FIRST  # in the first round nothing is a group's own
    weight = 1 / (factors.variances.noise + answers.sampling)
    features = np.sqrt(factors.variances.own) * phi
    own = features @ both[size:]
    own_variance = np.maximum(((features @ spread[size:, size:]) * features).sum(1), 0.0)
    z = np.concatenate([[1.0], latent.mean])
    product = own[:, None] * z  # E[f (1, z)]
    product[:, 1:] += features @ spread[size:, :size]
    square = (answers.y - own) ** 2 + own_variance
    return Part(
        rows=answers.rows,
        weight=weight,
        cross=weight[:, None] * (answers.y[:, None] * z - product),
        second=latent.second,
        residual=np.array([weight @ square, weight.sum(), weight @ answers.sampling]),
        own=np.array(
            [
                scale * (both[size:] @ both[size:] + np.trace(spread[size:, size:])),
                len(both) - size,
            ]
        ),
    )


def to_standard(total: Sums) -> Doubles:
    """The map [J, J] of (1, z) that gives the groups' latents mean 0 and covariance I."""
    mean = total.latent[1:, 0] / total.groups
    covariance = total.latent[1:, 1:] / total.groups - np.outer(mean, mean)
    change = np.eye(len(total.latent))
    if len(mean):
        change[1:, 1:] = np.linalg.inv(np.linalg.cholesky(covariance + LEAST * np.eye(len(mean))))
        change[1:, 0] = -change[1:, 1:] @ mean
    return change


@dataclass(frozen=True, eq=False)
class SeenFeatures:
    """Features of option rows that groups have answered, S of all R, and their principal axes."""

    phi: Doubles  # [S, M]
    strength: Doubles  # [M] eigenvalues of phi^T phi
    axes: Doubles  # [M, M]
    turned: Doubles  # [S, M] phi axes
    unseen: Doubles  # [R - S, M] squares of (phi axes) of all other rows


class TextFeatures:
    """Features phi [R, M] of all option rows of the survey.

    Which rows groups have answered changes rarely, and what follows from them alone is costly.
    """

    def __init__(self, phi: Doubles) -> None:
        self.phi = phi
        self._of = lru_cache(maxsize=1)(self._seen)

    def of(self, seen: Bools) -> SeenFeatures:
        """Of rows `seen` [R]."""
        return self._of(seen.tobytes())

    def _seen(self, seen: bytes) -> SeenFeatures:
        rows = np.frombuffer(seen, np.bool_)
        phi = self.phi[rows]
        strength, axes = np.linalg.eigh(phi.T @ phi)
        unseen = (self.phi[~rows] @ axes) ** 2
        return SeenFeatures(phi, np.maximum(strength, 0.0), axes, phi @ axes, unseen)


def maximise(factors: Factors, total: Sums, features: TextFeatures, learn: bool = True) -> Factors:
    """The next factors, from sums over groups whose latents are standard (`to_standard`).

    v_r ~ N(weights^T phi_r, diag(spread)) and weights ~ N(0, diag(text)): both posteriors are
    updated in turn. With `learn` the variances are, too.

    Args:
        features: of all option rows of the survey.
    """
    rows, width = factors.mean.shape
    before = factors.variances
    spread, text, weights = before.spread, before.text, factors.weights
    seen = total.answered > 0
    gram, cross = total.gram[seen], total.cross[seen]
    known = features.of(seen)
    strength = known.strength[:, None]
    expected = known.phi @ weights  # [S, J] by the text prior
    for _ in range(INNER):
        covariance = np.linalg.inv(gram + np.diag(1 / spread))
        mean = np.einsum("rij,rj->ri", covariance, cross + expected / spread)
        uncertain = 1 / (strength / spread + 1 / text)  # [M, J] variance of the turned weights
        turned_weights = uncertain * (known.turned.T @ mean) / spread
        weights = known.axes @ turned_weights
        expected = known.phi @ weights
        if learn and seen.any():
            text = np.maximum((turned_weights**2 + uncertain).mean(0), LEAST)
            error = (mean - expected) ** 2 + np.einsum("rii->ri", covariance)
            spread = error.mean(0) + (strength * uncertain).sum(0) / len(mean)
            spread = np.maximum(spread, LEAST)
    means, covariances = features.phi @ weights, np.zeros((rows, width, width))
    unseen = spread + known.unseen @ uncertain
    covariances[~seen] = unseen[:, :, None] * np.eye(width)
    means[seen], covariances[seen] = mean, covariance
    noise, own = before.noise, before.own
    if learn and seen.any():
        second = mean[:, :, None] * mean[:, None, :] + covariance
        misfit = total.residual[0] - 2 * (cross * mean).sum() + (gram * second).sum()
        noise = float(max((misfit - total.residual[2]) / total.residual[1], LEAST))
        own = float(total.own[0] / total.own[1]) if total.own[1] else FIRST
    variances = Variances(noise=noise, own=own, spread=spread, text=text)
    return Factors(mean=means, covariance=covariances, weights=weights, variances=variances)
