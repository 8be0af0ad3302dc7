"""Sums from which the prior by descriptions is learned, see `predictors.factors.descriptions`.

Names of dimensions: D embedding, K factors, J = 1 + K, P penalties.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np

from pluralllm_app.core.segments import Doubles, Floats
from pluralllm_app.learning.kept import Kept
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior, regressor
from pluralllm_app.predictors.factors.model import Latent
from pluralllm_app.predictors.factors.packing import pack_symmetric, unpack_symmetric

PENALTIES = np.logspace(-2, 2, 9)  # in units of the mean squared length of the centred directions
TINY = 1e-12
FEWEST = 3  # groups with a description from which anything is learned
CERTAIN = 0.05  # least variance that is left of a z whose variance is 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DescriptionSums:
    """Sums over groups with a description: e is its `regressor`, and z the group's latent."""

    inner: Doubles  # [1 + D, 1 + D] of e e^T
    cross: Doubles  # [1 + D, J] of e E[(1, z)]^T
    second: Doubles  # [J, J] of E[(1, z) (1, z)^T]

    @classmethod
    def of(cls, description: Floats | None, dim: int, second: Doubles) -> "DescriptionSums":
        """Of one group; all 0 where it has no description.

        Args:
            description: [D] embedded, or None.
            dim: D.
            second: [J, J] see `Latent.second`.
        """
        if description is None:
            return cls(
                inner=np.zeros((1 + dim, 1 + dim)),
                cross=np.zeros((1 + dim, len(second))),
                second=np.zeros_like(second),
            )
        e = regressor(description)
        return cls(inner=np.outer(e, e), cross=np.outer(e, second[0]), second=second)

    def __sub__(self, other: "DescriptionSums") -> "DescriptionSums":
        return DescriptionSums(
            inner=self.inner - other.inner,
            cross=self.cross - other.cross,
            second=self.second - other.second,
        )

    def pack(self) -> dict[str, Doubles]:
        """By name, for a message; of symmetric matrices the upper triangles."""
        return {
            "described-inner": pack_symmetric(self.inner),
            "described-cross": self.cross,
            "described-second": pack_symmetric(self.second),
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, Doubles]) -> "DescriptionSums":
        """Undo `pack`; other arrays are left alone."""
        return cls(
            inner=unpack_symmetric(arrays["described-inner"]),
            cross=arrays["described-cross"],
            second=unpack_symmetric(arrays["described-second"]),
        )

    def rotate(self, change: Doubles) -> "DescriptionSums":
        """The sums as they would be with (1, z) replaced by `change` [J, J] (1, z)."""
        return DescriptionSums(
            inner=self.inner,
            cross=self.cross @ change.T,
            second=change @ self.second @ change.T,
        )


def coefficients(sums: DescriptionSums) -> Doubles:
    """[P, 1 + D, K] of the ridge regression, intercept first, for each of PENALTIES."""
    groups = max(sums.inner[0, 0], 1.0)
    middle, level = sums.inner[0, 1:] / groups, sums.cross[0, 1:] / groups
    centred = sums.inner[1:, 1:] - groups * np.outer(middle, middle)
    values, axes = _principal(centred)
    turned = axes.T @ (sums.cross[1:, 1:] - groups * np.outer(middle, level))
    unit = max(values.sum() / groups, TINY)
    slopes = [axes @ (turned / (values + unit * penalty)[:, None]) for penalty in PENALTIES]
    return np.array([np.vstack([level - middle @ slope, slope]) for slope in slopes])


# Who has a description, and which, is the same in every round.
_KEPT = Kept()


def _principal(centred: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues [D], none below 0, and axes [D, D] of centred directions' e e^T [D, D]."""

    def find() -> dict[str, Doubles]:
        values, axes = np.linalg.eigh(centred)
        return {"values": np.maximum(values, 0.0), "axes": axes}

    found = _KEPT.get(sha256(centred.tobytes()).digest(), find)
    return found["values"], found["axes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """The ridge regression from descriptions to latents, and how far it is trusted."""

    sums: DescriptionSums
    penalty: int  # which of PENALTIES
    slope: Doubles  # [K] in 0 to 1, that predictions are multiplied by
    variance: Doubles  # [K] of z around its prediction, at most 1

    @classmethod
    def none(cls, dim: int, width: int) -> "Regression":
        """One that says nothing."""
        sums = DescriptionSums.of(None, dim, np.zeros((width, width)))
        size = width - 1
        return cls(sums=sums, penalty=0, slope=np.zeros(size), variance=np.ones(size))

    @classmethod
    def fit(
        cls, sums: DescriptionSums, agreement: Doubles, groups: float, importance: Doubles
    ) -> "Regression":
        """Choose penalty, slopes and variances by what groups say that were left out.

        Args:
            sums: over groups.
            agreement: [3, P, K] the sum of their `agreement_of`.
            groups: how many these were.
            importance: [K] mean squared loading of each factor, which weighs its error.
        """
        if groups < FEWEST:
            found = cls.none(len(sums.inner) - 1, len(sums.second))
            return replace(found, sums=sums)
        power, product, square = agreement
        slope = np.clip(product / np.maximum(power, TINY), 0.0, 1.0)
        # An agreement that chance alone gives counts for nothing.
        correlation = product / np.sqrt(np.maximum(power * square, TINY))
        slope = slope * (correlation > 1 / np.sqrt(groups))
        error = square - 2 * slope * product + slope**2 * power  # [P, K]
        best = int((error @ importance).argmin())
        variance = np.clip(error[best] / np.maximum(square[best], TINY), CERTAIN, 1.0)
        return cls(sums=sums, penalty=best, slope=slope[best], variance=variance)

    @cached_property
    def _coefficients(self) -> Doubles:
        return coefficients(self.sums)

    @property
    def prior(self) -> DescriptionPrior:
        """What it says of a new group."""
        return DescriptionPrior(self._coefficients[self.penalty] * self.slope, self.variance)

    def latent(self, description: Floats | None) -> Latent:
        """What it says of a group with this description, or without one."""
        if description is None:
            return Latent.standard(len(self.slope))
        return self.prior.latent(description)

    def agreement_of(self, description: Floats | None, latent: Latent) -> Doubles:
        """How well it predicts a group's z: [3, P, K], to be summed.

        Of the prediction m under each penalty: m^2, m E[z] and E[z^2]; 0 without a description.
        """
        if description is None:
            return np.zeros((3, len(PENALTIES), len(self.slope)))
        predicted = regressor(description) @ self._coefficients
        square = np.broadcast_to(np.diag(latent.second)[1:], predicted.shape)
        return np.stack([predicted**2, predicted * latent.mean, square])

    def pack(self) -> dict[str, Doubles]:
        """By name, for a message; with the prior, so that not everybody has to compute it."""
        return {
            **self.sums.pack(),
            "penalty": np.array([float(self.penalty)]),
            "slope": self.slope,
            "prior-weights": self.prior.weights,
            "prior-variance": self.variance,
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, Doubles]) -> "Regression":
        """Undo `pack`; other arrays are left alone."""
        return cls(
            sums=DescriptionSums.unpack(arrays),
            penalty=int(arrays["penalty"][0]),
            slope=arrays["slope"],
            variance=arrays["prior-variance"],
        )
