"""Predictors without federated training: what a trained predictor has to beat.

Those that pool need the train groups' raw answers in one place, the very thing federated training
avoids; `BASELINES` says of each whether it does. A group that is itself among the train groups is
left out when it is predicted, so that it counts as a new group.

Shares are flat: the options of question 0, then of question 1, and so on. Everything is computed
in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints, segment_starts
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.metrics import js_divergence

# Rank and rounds were chosen on the train groups of GlobalOpinionQA, each left out in turn, where
# neither more of the one nor of the other scored visibly better;
# the temperature is that of the first measurements and was never tuned here. All else is learned
# from what a baseline may read.
TEMPERATURE = 0.02  # nats of divergence that lower a train group's weight by a factor e
RANK = 4  # latent dimensions, at most
ROUNDS = 40  # of variational updates
TINY = 1e-9  # least variance, for answers without noise
PENALTIES = np.logspace(4, -2, 25)  # of ridge, relative to a row's mean squared norm


@dataclass(frozen=True)
class TrainAnswers:
    """What a train group lets others pool: its preference set, and which of its answers."""

    preferences: PreferenceSet
    positions: Ints  # [n] positions in `preferences` of the questions that may be used


class Baseline(Protocol):
    """A fitted baseline."""

    def predict(self, preferences: PreferenceSet, context: Ints, target: Ints) -> Doubles:
        """Predict a group's answers to some questions from its answers to others.

        Args:
            preferences: those of the group; no share outside `context` is read.
            context: [C] positions of the questions whose answers are known.
            target: [Q] positions of the questions to predict.

        Returns:
            [T] shares of the options of the target questions, flat, summing to 1 per question.
        """
        ...


@dataclass(frozen=True)
class Kind:
    """How a baseline is fitted, and what it needs."""

    title: str  # for tables
    pools_answers: bool  # needs the train groups' raw answers in one place
    fit: Callable[[Sequence[TrainAnswers]], Baseline]


def known_shares(preferences: PreferenceSet, positions: Ints) -> Doubles:
    """Shares of the questions at `positions` [n], flat; no others are read."""
    return preferences.shares[preferences.share_rows(positions)].astype(np.float64)


def uniform_shares(options: Ints) -> Doubles:
    """1 / option count for every option of questions with `options` [Q] options, flat."""
    uniform: Doubles = np.repeat(1.0 / options, options)
    return uniform


def distributions(values: Doubles, options: Ints) -> Doubles:
    """Clip flat values at 0 and scale them to sum to 1 per question; uniform where all are 0.

    >>> distributions(np.array([3.0, 1.0, -1.0, 0.0]), np.array([2, 2]))
    array([0.75, 0.25, 0.5 , 0.5 ])
    """
    clipped = np.maximum(values, 0.0)
    total = np.repeat(np.add.reduceat(clipped, segment_starts(options)), options)
    scaled: Doubles = np.divide(clipped, total, out=uniform_shares(options), where=total > 0)
    return scaled


class Uniform:
    """Every option alike: 1 / option count. Needs no answers at all."""

    def predict(self, preferences: PreferenceSet, context: Ints, target: Ints) -> Doubles:
        return uniform_shares(preferences.options[target])


@dataclass(frozen=True, eq=False)
class Pool:
    """The raw answers of G train groups in one place, over all R rows of the option table."""

    groups: tuple[str, ...]  # [G]
    shares: Doubles  # [G, R], 0 where not answered
    uniform: Doubles  # [R] 1 / option count of the question, 0 where no group answered it
    answered: Bools  # [G, R]

    @classmethod
    def gather(cls, train: Sequence[TrainAnswers]) -> "Pool":
        """Put together what each group of `train` (at least one) lets others use."""
        groups = tuple(answers.preferences.group for answers in train)
        shares = np.zeros((len(train), len(train[0].preferences.embeddings)))
        uniform = np.zeros(shares.shape[1])
        answered = np.zeros(shares.shape, np.bool_)
        for i, answers in enumerate(train):
            rows = answers.preferences.table_rows(answers.positions)
            shares[i, rows] = known_shares(answers.preferences, answers.positions)
            uniform[rows] = uniform_shares(answers.preferences.options[answers.positions])
            answered[i, rows] = True
        return cls(groups, shares, uniform, answered)

    def others(self, group: str) -> Bools:
        """[G] which train groups may serve to predict `group`: all but itself."""
        return np.array([name != group for name in self.groups])


class Consensus:
    """Mean of the train groups' answers to the same question; uniform where none answered it.

    Share of option r = mean over the groups g that answered of share_gr. Needs the train groups'
    answers pooled, and nothing of the new group.
    """

    def __init__(self, train: Sequence[TrainAnswers]) -> None:
        self.pool = Pool.gather(train)

    def weights(self, preferences: PreferenceSet, context: Ints) -> Doubles:
        """[G] weight of each train group."""
        return np.ones(len(self.pool.groups))

    def predict(self, preferences: PreferenceSet, context: Ints, target: Ints) -> Doubles:
        weights = self.weights(preferences, context) * self.pool.others(preferences.group)
        # Scaling to sum 1 divides by the weight of the groups that answered.
        total = weights @ self.pool.shares[:, preferences.table_rows(target)]
        return distributions(total, preferences.options[target])


class WeightedConsensus(Consensus):
    """The consensus, with train groups that answer the context alike weighing more.

    weight_g = exp(-d_g / TEMPERATURE), where d_g is the mean Jensen-Shannon divergence (nats)
    between g and the new group over the context questions both answered. A train group that
    answered none of them gets the mean d of the others: it counts like a middling group, for it
    may be the only one to know a target. Needs the train groups' answers pooled, and the new
    group's context where they are.
    """

    def weights(self, preferences: PreferenceSet, context: Ints) -> Doubles:
        rows, options = preferences.table_rows(context), preferences.options[context]
        groups = len(self.pool.groups)
        known = np.tile(known_shares(preferences, context), groups)
        answers = self.pool.shares[:, rows].ravel()
        divergence = js_divergence(answers, known, np.tile(options, groups))
        common = self.pool.answered[:, preferences.first_rows[context]]  # [G, C]
        total = (divergence.reshape(common.shape) * common).sum(1)
        count = common.sum(1)
        near = self.pool.others(preferences.group) & (count > 0)
        middling = (total[near] / count[near]).mean() if near.any() else 0.0
        mean = np.divide(total, count, out=np.full(groups, middling), where=count > 0)
        weights: Doubles = np.exp(-mean / TEMPERATURE)
        return weights


@dataclass(frozen=True, eq=False)
class Factors:
    """What `LowRank` learned: the posterior of f_r = (offset, K loadings) of each option row."""

    mean: Doubles  # [R, 1 + K] mean of f_r; 0 where no group answered
    square: Doubles  # [R, 1 + K, 1 + K] mean of f_r f_r^T; 0 where no group answered
    noise: float  # variance of an entry around offset_r + loadings_r . z_g

    @classmethod
    def fit(cls, values: Doubles, answered: Bools) -> "Factors":
        """Fit `values` [G, R], 0 where not `answered`, by ROUNDS of variational updates.

        The noise and the prior variances of offset and loadings are re-estimated in each round.
        Options that were answered by the same groups have the same posterior covariance, so that
        it is computed once for each pattern of groups.
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


class LowRank:
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

    def __init__(self, train: Sequence[TrainAnswers]) -> None:
        self.pool = Pool.gather(train)
        self._fitted: dict[str | None, Factors] = {}

    def factors(self, group: str) -> Factors:
        """The model fitted without `group`, kept for its next prediction."""
        left_out = group if group in self.pool.groups else None
        if left_out not in self._fitted:
            others, pool = self.pool.others(group), self.pool
            roots = np.where(pool.answered, np.sqrt(pool.shares) - np.sqrt(pool.uniform), 0.0)
            self._fitted[left_out] = Factors.fit(roots[others], pool.answered[others])
        return self._fitted[left_out]

    def predict(self, preferences: PreferenceSet, context: Ints, target: Ints) -> Doubles:
        factors = self.factors(preferences.group)
        rows, options = preferences.table_rows(context), preferences.options[context]
        roots = np.sqrt(known_shares(preferences, context)) - np.sqrt(uniform_shares(options))
        latent, _ = factors.at(rows).latent(roots[None], np.ones((1, len(rows)), np.bool_))
        rows, options = preferences.table_rows(target), preferences.options[target]
        predicted = np.sqrt(uniform_shares(options)) + factors.mean[rows] @ latent[0]
        return distributions(np.maximum(predicted, 0.0) ** 2, options)


class Ridge:
    """Ridge regression from option embeddings to shares, on the new group's context alone.

    share_r = 1 / options + w . (x_r - mean of x over the question's options), with w minimising
    the squared error over the context's options plus penalty * |w|^2. The penalty is the one of
    PENALTIES with the least squared error when each context question is left out in turn, in
    closed form: with A = (X X^T + penalty)^-1 on the context's options and A_q its block of
    question q, the left-out residual of q is A_q^-1 (A y)_q (Allen's PRESS by blocks). Predictions
    are clipped at 0 and rescaled. Needs nothing pooled.
    """

    def predict(self, preferences: PreferenceSet, context: Ints, target: Ints) -> Doubles:
        x = centred_embeddings(preferences, context)
        options = preferences.options[context]
        y = known_shares(preferences, context) - uniform_shares(options)
        eigenvalues, vectors = np.linalg.eigh(x @ x.T)
        scale = np.einsum("rd,rd->", x, x) / max(len(x), 1) or 1.0

        # Options of a question in a square block; a missing option gets the row of the identity.
        slot = np.arange(options.max(initial=0))
        missing = slot >= options[:, None]  # [C, most options]
        row = np.where(missing, 0, segment_starts(options)[:, None] + slot)
        outside = missing[:, :, None] | missing[:, None, :]
        identity = np.eye(len(slot))

        def left_out_error(penalty: float) -> float:
            inverse = (vectors / (eigenvalues + penalty)) @ vectors.T
            blocks = np.where(outside, identity, inverse[row[:, :, None], row[:, None, :]])
            fitted = np.where(missing, 0.0, (inverse @ y)[row])
            return float((np.linalg.solve(blocks, fitted[:, :, None]) ** 2).sum())

        penalty = min(PENALTIES * scale, key=left_out_error)
        weights = x.T @ (vectors @ ((y @ vectors) / (eigenvalues + penalty)))
        options = preferences.options[target]
        deviation = centred_embeddings(preferences, target) @ weights
        return distributions(uniform_shares(options) + deviation, options)


def centred_embeddings(preferences: PreferenceSet, positions: Ints) -> Doubles:
    """Embeddings [R, dim_x] of the options at `positions` minus their question's mean."""
    x = preferences.embeddings.numpy()[preferences.table_rows(positions)].astype(np.float64)
    options = preferences.options[positions]
    mean = np.add.reduceat(x, segment_starts(options)) / options[:, None]
    centred: Doubles = x - np.repeat(mean, options, axis=0)
    return centred


BASELINES: dict[str, Kind] = {
    "uniform": Kind("Uniform", pools_answers=False, fit=lambda train: Uniform()),
    "consensus": Kind("Consensus", pools_answers=True, fit=Consensus),
    "weighted-consensus": Kind("Weighted consensus", pools_answers=True, fit=WeightedConsensus),
    "low-rank": Kind("Low rank", pools_answers=True, fit=LowRank),
    "ridge": Kind("Ridge", pools_answers=False, fit=lambda train: Ridge()),
}
