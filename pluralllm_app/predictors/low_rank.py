"""Predict a group by Bayesian principal components of the train groups' answers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints
from pluralllm_app.predictors.base import Prediction
from pluralllm_app.predictors.pool import Pool, PoolingBaseline
from pluralllm_app.predictors.uniform import distributions, uniform_shares
from pluralllm_app.preferences import PreferenceSet, QuestionSet

# Both were chosen on the train groups of GlobalOpinionQA, with each group left out in turn: larger
# values scored no better there.
RANK = 4  # latent dimensions, at most
ROUNDS = 40  # of variational updates
TINY = 1e-9  # least variance, for answers without noise


@dataclass(frozen=True, eq=False)
class Factors:
    """What `LowRank` learns: the posterior of f_r = (offset, K loadings) of each option row."""

    mean: Doubles  # [R, 1 + K] mean of f_r; 0 where no group answered
    square: Doubles  # [R, 1 + K, 1 + K] mean of f_r f_r^T; 0 where no group answered
    noise: float  # variance of an entry around offset_r + loadings_r . z_g

    @classmethod
    def fit(cls, values: Doubles, answered: Bools) -> "Factors":
        """Fit `values` [G, R], which are 0 where not `answered`, by ROUNDS of variational updates.

        Each round also re-estimates the noise and the prior variances of offset and loadings.
        Options that the same groups answered have the same posterior covariance, so it is computed
        once for each pattern of groups.
        """
        groups = len(values)
        if not answered.any():
            return cls(np.zeros((values.shape[1], 1)), np.zeros((values.shape[1], 1, 1)), 1.0)
        patterns, pattern = np.unique(answered, axis=1, return_inverse=True)
        count = answered.sum(0)
        some = count > 0
        # Start from the principal axes of the groups' deviations from the mean answer.
        mean = np.divide(values.sum(0), count, out=np.zeros(len(count)), where=some)
        deviation = np.where(answered, values - mean, 0.0)
        rank = min(RANK, groups - 1)
        axes = np.linalg.eigh(deviation @ deviation.T)[1][:, ::-1][:, :rank]
        latent = np.hstack([np.ones((groups, 1)), axes * np.sqrt(groups)])
        latent_square = latent[:, :, None] * latent[:, None, :]
        noise, prior = 0.01, np.full(1 + rank, 0.01)
        for _ in range(ROUNDS):
            evidence = np.einsum("gp,gij->pij", patterns, latent_square) / noise
            covariance = np.linalg.inv(evidence + np.diag(1 / prior))[pattern]
            factor = np.einsum("rij,rj->ri", covariance, values.T @ latent) / noise
            square = (factor[:, :, None] * factor[:, None, :] + covariance) * some[:, None, None]
            prior = np.maximum(np.einsum("rii->i", square) / some.sum(), TINY)
            factors = cls(factor, square, noise)
            latent, latent_square = factors.latent(values, answered)
            error = (
                (values**2).sum()
                - 2 * (latent * (values @ factor)).sum()
                + (factors.seen(answered) * latent_square).sum()
            )
            noise = max(float(error) / answered.sum(), TINY)
        return cls(factor, square, noise)

    def at(self, rows: Ints) -> "Factors":
        """The factors of some rows of the option table."""
        return Factors(self.mean[rows], self.square[rows], self.noise)

    def seen(self, answered: Bools) -> Doubles:
        """Sum of `square` over the rows each group answered: [G, 1 + K, 1 + K]."""
        return np.tensordot(answered.astype(np.float64), self.square, 1)

    def latent(self, values: Doubles, answered: Bools) -> tuple[Doubles, Doubles]:
        """Posterior of each group's (1, latent): its mean [G, 1 + K] and the mean of its square."""
        seen = self.seen(answered)
        covariance = np.zeros_like(seen)
        unit = np.eye(seen.shape[1] - 1)
        covariance[:, 1:, 1:] = np.linalg.inv(seen[:, 1:, 1:] / self.noise + unit)
        mean = np.einsum("gij,gj->gi", covariance, values @ self.mean - seen[:, :, 0]) / self.noise
        mean[:, 0] = 1.0
        return mean, mean[:, :, None] * mean[:, None, :] + covariance


class LowRank(PoolingBaseline):
    """Bayesian principal components of the groups' square-root shares.

    sqrt(share_gr) = sqrt(1 / options) + offset_r + loadings_r . z_g + noise, with Gaussian priors:
    z_g standard normal in up to RANK dimensions, offset and loadings around 0, so that an option
    few groups answered stays near uniform, or is uniform where none did. Groups differ in what
    they answered; missing entries are left out of the likelihood. Fitted by variational Bayes
    (Bishop 1999, "Variational principal components"; Ilin and Raiko 2010, JMLR 11:1957, for
    missing values), because with a handful of groups point estimates of the loadings overfit. The
    new group's z is its posterior mean given the context; predicted roots are clipped at 0,
    squared and rescaled. Euclidean distance of square roots is, up to a factor, the Hellinger
    distance, which the Jensen-Shannon distance follows closely.

    Needs the train groups' answers pooled, and the new group's context where they are.
    """

    kind: ClassVar[str] = "low-rank"
    title: ClassVar[str] = "Low rank"
    about: ClassVar[str] = (
        "It describes each group by a few numbers, which it estimates from the context questions, "
        "and predicts with the answers of groups that these numbers liken it to."
    )

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._fitted: dict[str | None, Factors] = {}

    def factors(self, group: str) -> Factors:
        """The model fitted without `group`, kept for its next prediction."""
        left_out = group if group in self.pool.groups else None
        if left_out not in self._fitted:
            others, pool = self.pool.others(group), self.pool
            roots = np.where(pool.answered, np.sqrt(pool.shares) - np.sqrt(pool.uniform), 0.0)
            self._fitted[left_out] = Factors.fit(roots[others], pool.answered[others])
        return self._fitted[left_out]

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict from the posterior of the group's position given its context."""
        factors = self.factors(context.group)
        known = context.shares.astype(np.float64)
        roots = np.sqrt(known) - np.sqrt(uniform_shares(context.options))
        rows = self.pool.rows(context)
        latent, _ = factors.at(rows).latent(roots[None], np.ones((1, len(rows)), np.bool_))
        predicted = np.sqrt(uniform_shares(target.options))
        predicted += factors.mean[self.pool.rows(target)] @ latent[0]
        return Prediction(distributions(np.maximum(predicted, 0.0) ** 2, target.options))
