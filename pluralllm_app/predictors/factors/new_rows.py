"""Option rows that no survey had: what their text alone says of their offset and loadings.

A new row's v_r is normal around weights^T phi_r. Its variance is that of rows around their text
prior, and what is uncertain of the weights themselves: little where the survey has many questions
with a text like this, much where it has none.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.predictors.factors.model import Factors
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

MOST = 10_000  # rows of the survey that are looked at, about


@dataclass(frozen=True, eq=False)
class NewRows:
    """New rows beside those of a survey."""

    kernel: TextKernel
    survey: OptionRows  # of all its questions

    def extend(self, factors: Factors, rows: Ints, text: OptionRows) -> Factors:
        """Factors of some rows [n] of whole questions; new ones are numbered from R on."""
        size, width = factors.mean.shape
        new, phi = rows >= size, self.kernel.features(text)
        strength, axes = self._strength
        variances = factors.variances
        uncertain = 1 / (strength[:, None] / variances.spread + 1 / variances.text)  # [M, J]
        variance = variances.spread + (phi @ axes) ** 2 @ uncertain
        mean, covariance = phi @ factors.weights, variance[:, :, None] * np.eye(width)
        mean[~new] = factors.mean[rows[~new]]
        covariance[~new] = factors.covariance[rows[~new]]
        return replace(factors, mean=mean, covariance=covariance)

    @cached_property
    def _strength(self) -> tuple[Doubles, Doubles]:
        """Eigenvalues [M] and axes [M, M] of phi^T phi over the survey's rows."""
        every = -(-len(self.survey) // MOST)
        some = self.survey.select(np.arange(0, len(self.survey.options), every))
        phi = self.kernel.features(some)
        strength, axes = np.linalg.eigh(phi.T @ phi)
        return every * np.maximum(strength, 0.0), axes
