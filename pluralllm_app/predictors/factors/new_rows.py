"""Option rows that no survey had: what their text alone says of their offset and loadings.

A new row's v_r is normal around weights^T phi_r. Its variance is that of rows around their text
prior, and what is uncertain of the prior itself: little where the survey has many questions with a
text like this, much where it has none. Of a text unlike all landmarks phi_r is nearly 0; what the
landmarks do not see of it, beyond what they miss of the survey's rows, counts as well.
"""

from collections.abc import Callable
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
    survey: Callable[[], OptionRows]  # of all its questions; called when the first new row comes

    def extend(
        self, factors: Factors, rows: Ints, text: OptionRows, phi: Doubles | None = None
    ) -> Factors:
        """Factors of some rows [n] of whole questions; new ones are numbered from R on.

        `phi` are the features of their text, where they are known already.
        """
        size, width = factors.mean.shape
        new, phi = rows >= size, self.kernel.features(text) if phi is None else phi
        strength, axes, missed = self._survey
        variances = factors.variances
        uncertain = 1 / (strength[:, None] / variances.spread + 1 / variances.text)  # [M, J]
        unseen = np.maximum(self._unseen(text, phi) - missed, 0.0)
        variance = variances.spread + (phi @ axes) ** 2 @ uncertain
        variance += unseen[:, None] * variances.text
        mean, covariance = phi @ factors.weights, variance[:, :, None] * np.eye(width)
        mean[~new] = factors.mean[rows[~new]]
        covariance[~new] = factors.covariance[rows[~new]]
        return replace(factors, mean=mean, covariance=covariance)

    @cached_property
    def _survey(self) -> tuple[Doubles, Doubles, float]:
        """Eigenvalues [M] and axes [M, M] of phi^T phi over the survey's rows, and `_unseen`."""
        rows = self.survey()
        every = -(-len(rows) // MOST)
        some = rows.select(np.arange(0, len(rows.options), every))
        phi = self.kernel.features(some)
        strength, axes = np.linalg.eigh(phi.T @ phi)
        missed = float(self._unseen(some, phi).mean())
        return every * np.maximum(strength, 0.0), axes, missed

    def _unseen(self, text: OptionRows, phi: Doubles) -> Doubles:
        """The variance [n] of rows that their features lack."""
        unseen: Doubles = self.kernel.variance(text) - (phi**2).sum(1)
        return unseen
