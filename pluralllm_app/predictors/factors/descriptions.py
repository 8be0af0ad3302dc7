"""What a description of a group says about its latent z: the prior of a group that answered little.

A ridge regression from the embedded description to z, learned by sums over the train groups that
have one. How far it is trusted, train groups say whose z was predicted from the others: per factor,
a slope between 0 and 1 and the variance that remains. A factor that descriptions say nothing about
keeps its standard normal prior.

Names of dimensions: D embedding, K factors, J = 1 + K, P penalties.
"""

from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Doubles, Floats
from pluralllm_app.predictors.factors.model import Latent


@dataclass(frozen=True, eq=False)
class DescriptionPrior:
    """A regression from descriptions, shrunk by what train groups left out say of it."""

    weights: Doubles  # [1 + D, K], intercept first
    variance: Doubles  # [K] of z around the prediction, at most 1

    @classmethod
    def none(cls, dim: int, factors: int) -> "DescriptionPrior":
        """One that says nothing."""
        return cls(np.zeros((1 + dim, factors)), np.ones(factors))

    def latent(self, description: Floats | None) -> Latent:
        """What is believed of the z of a group with this description [D]; None: it has none."""
        if description is None:
            return Latent.standard(len(self.variance))
        mean = regressor(description) @ self.weights
        return Latent(mean=mean, covariance=np.diag(self.variance))


def regressor(description: Floats) -> Doubles:
    """(1, direction) [1 + D] of an embedded description; the direction of 0 is 0.

    The 1 is for an intercept. Without it, of a handful of groups whose latents sum to about 0, one
    left out is minus the sum of the others, and seems predictable.
    """
    text = np.asarray(description, np.float64)
    norm = np.linalg.norm(text)
    return np.concatenate([[1.0], text / norm if norm > 0 else text])
