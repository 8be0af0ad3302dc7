"""The latent-factor model of square-root shares: what is shared, and how it predicts a group.

    sqrt(share_gr) = 1 / sqrt(options_r) + mu_r + V_r . z_g + f_g(r) + noise

Shared are the posterior of v_r = (mu_r, V_r), offset and K loadings of each option row, and a few
variances. Private, inferred where the group's answers are, are the latent z_g ~ N(0, I) and
f_g ~ GP(0, own k), what is the group's alone, with k the text kernel. A new group needs no
training: its z_g and f_g follow in closed form from its context.

Names of dimensions: R option rows of the survey, J = 1 + K, M landmarks, C context and T target
rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from pluralllm_app.core.segments import Doubles, Floats, Ints, segment_rows, segment_starts
from pluralllm_app.predictors.factors.text_kernel import OptionRows

SMALLEST = 1e-4  # predicted share, before it is rescaled


@dataclass(frozen=True, kw_only=True, eq=False)
class Variances:
    """All that is estimated besides offsets and loadings."""

    noise: float  # of y around the model
    own: float  # of f_g, in units of the kernel
    spread: Doubles  # [J] of v_r around its text prior
    text: Doubles  # [J] of the weights of the text prior


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """Gaussian posterior of offset and loadings of every option row."""

    mean: Doubles  # [R, J]
    covariance: Doubles  # [R, J, J]
    weights: Doubles  # [M, J] of the text prior: the prior mean of v_r is phi_r . weights
    variances: Variances

    def of_rows(self, rows: Ints) -> "Factors":
        """Those of some rows [n], numbered from 0."""
        return replace(self, mean=self.mean[rows], covariance=self.covariance[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Latent:
    """A Gaussian belief about a group's z."""

    mean: Doubles  # [K]
    covariance: Doubles  # [K, K]

    @classmethod
    def standard(cls, size: int) -> "Latent":
        """What is believed of a group of which nothing is known."""
        return cls(mean=np.zeros(size), covariance=np.eye(size))

    @property
    def second(self) -> Doubles:
        """Mean of (1, z) (1, z)^T: [J, J]."""
        z = np.concatenate([[1.0], self.mean])
        second = np.outer(z, z)
        second[1:, 1:] += self.covariance
        return second


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Answers of one group, in the model's coordinates; n rows of whole questions."""

    rows: Ints  # [n] in the survey's option table
    text: OptionRows  # [n]
    y: Doubles  # [n] roots of shares minus the root of 1 / options
    sampling: Doubles  # [n] variance of y from the number of respondents; 0 where unknown
    noise: Doubles  # [n] variance of y from noise that hides respondents; `sampling` has it as well

    @classmethod
    def of(
        cls,
        rows: Ints,
        text: OptionRows,
        shares: Floats | Doubles,
        respondents: Doubles | None = None,
        noise: Doubles | None = None,
    ) -> "Answers":
        """Shares [n], summing to 1 per question.

        Args:
            respondents: [Q], nan where unknown.
            noise: [Q] respondents who would vary as much as noise does, see `PreferenceSet`.
        """
        p = np.asarray(shares, np.float64)
        return cls(
            rows=rows,
            text=text,
            y=np.sqrt(p) - uniform(text),
            sampling=_variance(p, text, respondents),
            noise=_variance(p, text, noise),
        )

    @property
    def shares(self) -> Doubles:
        """[n] the shares themselves."""
        shares: Doubles = (self.y + uniform(self.text)) ** 2
        return shares

    def select(self, positions: Ints) -> "Answers":
        """The answers to the questions at `positions`; their rows are numbered from 0 to n - 1."""
        options = self.text.options
        flat = segment_rows(segment_starts(options)[positions], options[positions])
        text = self.text.select(positions)
        y, sampling, noise = self.y[flat], self.sampling[flat], self.noise[flat]
        return Answers(rows=flat, text=text, y=y, sampling=sampling, noise=noise)


def _variance(p: Doubles, text: OptionRows, respondents: Doubles | None) -> Doubles:
    """[n] of the roots of shares p [n] of so many respondents [Q]; 0 where their number is unknown.

    Delta method, with half a respondent added to each option, so that a share of 1 is not certain:
    var(sqrt(p)) = (1 - p) / 4 n.
    """
    if respondents is None:
        return np.zeros(len(p))
    count = np.repeat(respondents, text.options)
    smooth = (p * count + 0.5) / (count + 0.5 * text.counts)
    delta = (1 - smooth) / (4 * count)
    return np.where(np.isfinite(count) & (count > 0), delta, 0.0)


def uniform(text: OptionRows) -> Doubles:
    """[n] the root of 1 / options."""
    value: Doubles = 1 / np.sqrt(text.counts)
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Belief:
    """Predicted y of some option rows: independent Gaussians."""

    mean: Doubles  # [T]
    variance: Doubles  # [T]
    options: Ints  # [Q]

    @property
    def shares(self) -> Doubles:
        """[T] the square of the mean, rescaled to sum to 1 per question."""
        return self._shares(self.mean)[0]

    @property
    def deviation(self) -> Doubles:
        """[T] standard deviation of each share: that of the square of a Gaussian, times the scale.

        The square's slope alone would make shares near 0 all but certain.
        """
        _, scale = self._shares(self.mean)
        square = 4 * self.mean**2 * self.variance + 2 * self.variance**2
        deviation: Doubles = scale * np.sqrt(square)
        return deviation

    def coordinates(self, shares: Floats | Doubles) -> Doubles:
        """[T] true shares on the scale of the mean, whose shares are rescaled to sum to 1."""
        _, scale = self._shares(self.mean)
        y: Doubles = np.sqrt(np.asarray(shares, np.float64) / scale)
        return y

    def intervals(self, widths: Doubles) -> Doubles:
        """[L, 2, T] bounds of the shares, `widths` [L] standard deviations of y off the mean.

        They hold the predicted share, also where that is the smallest that is ever predicted.
        """
        shares, scale = self._shares(self.mean)
        steps = widths[:, None] * np.sqrt(self.variance)
        y = np.maximum(np.stack([self.mean - steps, self.mean + steps], axis=1), 0.0)
        bounds: Doubles = np.minimum(y**2 * scale, 1.0)
        bounds[:, 0] = np.minimum(bounds[:, 0], shares)
        bounds[:, 1] = np.maximum(bounds[:, 1], shares)
        return bounds

    def _shares(self, y: Doubles) -> tuple[Doubles, Doubles]:
        share = np.maximum(np.maximum(y, 0.0) ** 2, SMALLEST)
        starts = segment_starts(self.options)
        total = np.add.reduceat(share, starts) if len(starts) else share
        scale = np.repeat(1 / total, self.options)
        return share * scale, scale
