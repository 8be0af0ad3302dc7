"""What is believed of a group once some of its answers are known: a Gaussian over all its others.

The roots of shares have the covariance V S V^T + own k, S that of z; the posterior variance of
offset and loadings counts as noise of its row. Conditioned on the answers exactly, that is one
system of as many equations as there are option rows in the context. Where these are thousands, the
text kernel is taken by its landmarks, of which there are fewer (FITC: Snelson and Ghahramani 2006,
NIPS 18), so that time and memory grow with the number of answers and not with its cube.

Names of dimensions: C context and T target rows, F = K + M features.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.predictors.factors.model import Answers, Belief, Factors, Latent, uniform
from pluralllm_app.predictors.factors.new_rows import NewRows
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

MOST_EXACT = 3000  # context rows


class Posterior(Protocol):
    """A belief about all answers of a group."""

    def believe(self, rows: Ints, text: OptionRows) -> Belief:
        """What is believed of the questions of `rows` [T]; see `NewRows` for new ones."""


def given(
    factors: Factors,
    kernel: TextKernel,
    context: Answers,
    latent: Latent,
    new: NewRows | None = None,
) -> Posterior:
    """Condition on the answers of `context`, which may be none.

    Args:
        factors: of the survey.
        kernel: of the texts.
        context: the answers.
        latent: what was believed of the group's z before.
        new: what is known of rows that are not of the survey, where there may be some.
    """
    group = Group(factors, kernel, latent, new)
    if len(context.rows) > MOST_EXACT:
        return ByFeatures.of(group, context)
    return _Exact.of(group, context)


@dataclass(frozen=True, eq=False)
class Group:
    """What is believed before any answer."""

    factors: Factors
    kernel: TextKernel
    latent: Latent
    new: NewRows | None

    def rows(
        self, rows: Ints, text: OptionRows, phi: Doubles | None = None
    ) -> tuple[Doubles, Doubles, Doubles]:
        """Mean [n] of y, loadings [n, K], and variance [n] from uncertain offsets and loadings.

        `phi` are the features of all landmarks of `new`, where they are known already.
        """
        factors, index = self.factors, rows
        if self.new and (rows >= len(factors.mean)).any():
            factors, index = self.new.extend(factors, rows, text, phi), np.arange(len(rows))
        second = self.latent.second.ravel()
        z = np.concatenate([[1.0], self.latent.mean])
        uncertain = factors.covariance[index].reshape(len(index), second.size) @ second
        return factors.mean[index] @ z, factors.mean[index, 1:], uncertain


@dataclass(frozen=True, eq=False)
class _Exact:
    group: Group
    context: Answers
    loadings: Doubles  # [C, K]
    residual: Doubles  # [C] of y around what was believed before
    inverse: Doubles  # [C, C] of the covariance of y

    @classmethod
    def of(cls, group: Group, context: Answers) -> "_Exact":
        variances = group.factors.variances
        known, loadings, uncertain = group.rows(context.rows, context.text)
        inner = loadings @ group.latent.covariance @ loadings.T
        inner += variances.own * group.kernel.covariance(context.text, context.text)
        noise = uncertain + variances.noise + context.sampling
        inner[np.diag_indices_from(inner)] += noise
        inverse = np.asarray(np.linalg.inv(inner), np.float64)
        return cls(group, context, loadings, context.y - known, inverse)

    def believe(self, rows: Ints, text: OptionRows) -> Belief:
        """What is believed of the questions of `rows` [T]."""
        factors, kernel = self.group.factors, self.group.kernel
        own = factors.variances.own
        mean, loadings, uncertain = self.group.rows(rows, text)
        spread = loadings @ self.group.latent.covariance
        variance = (spread * loadings).sum(1) + uncertain + own * kernel.variance(text)
        if len(self.residual):
            across = spread @ self.loadings.T + own * kernel.covariance(text, self.context.text)
            gain = across @ self.inverse
            mean = mean + gain @ self.residual
            variance = variance - (gain * across).sum(1)
        variance = np.maximum(variance, 0.0) + factors.variances.noise
        return Belief(mean=mean + uniform(text), variance=variance, options=text.options)


@dataclass(frozen=True, eq=False)
class ByFeatures:
    """The same by features: y = known + X w + what each row has of its own, w ~ N(mean, cov)."""

    group: Group
    mean: Doubles  # [F]
    covariance: Doubles  # [F, F]

    @classmethod
    def of(cls, group: Group, context: Answers) -> "ByFeatures":
        """Condition on the answers of `context`."""
        start = cls.before(group)
        known, x, alone = start.features(context.rows, context.text)
        noise = alone + group.factors.variances.noise + context.sampling
        scaled = x / noise[:, None]
        precision = np.eye(x.shape[1]) + scaled.T @ x
        covariance = np.asarray(np.linalg.inv(precision), np.float64)
        return cls(group, covariance @ (scaled.T @ (context.y - known)), covariance)

    @classmethod
    def before(cls, group: Group) -> "ByFeatures":
        """What is believed before any answer."""
        size = len(group.latent.mean) + len(group.kernel.landmarks)
        return cls(group, np.zeros(size), np.eye(size))

    def features(self, rows: Ints, text: OptionRows) -> tuple[Doubles, Doubles, Doubles]:
        """Mean [n] of y before any answer, X [n, F], and the variance [n] of a row alone."""
        own, kernel = self.group.factors.variances.own, self.group.kernel
        phi = kernel.features(text)
        new = self.group.new
        same = new is not None and len(new.kernel.landmarks) == phi.shape[1]
        mean, loadings, uncertain = self.group.rows(rows, text, phi if same else None)
        left = np.maximum(kernel.variance(text) - (phi**2).sum(1), 0.0)
        x = np.hstack([loadings @ np.linalg.cholesky(self.group.latent.covariance), own**0.5 * phi])
        return mean, x, uncertain + own * left

    def believe(self, rows: Ints, text: OptionRows) -> Belief:
        """What is believed of the questions of `rows` [T]."""
        mean, x, alone = self.features(rows, text)
        variance = ((x @ self.covariance) * x).sum(1) + alone + self.group.factors.variances.noise
        y = mean + x @ self.mean + uniform(text)
        return Belief(mean=y, variance=variance, options=text.options)
