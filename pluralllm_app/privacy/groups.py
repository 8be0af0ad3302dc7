"""Noise on what groups' updates add up to, so that the sum hides all that any one group answered.

Two federations are neighbours if they differ in one group: in its answers and its description, but
not in its name nor in how many questions it answered, which the server knows anyway. A round of
secure sums then is the Gaussian mechanism, whatever a group computes locally: its update is clipped
to the L2 norm C, so the sum moves by at most 2 C. Moments that a group keeps from round to round
change what it computes and not that bound, as long as no noise is used for two different updates:
see `federation.noised_updates`.

Each group adds a share of the noise to its own vector, before it is masked, so that the server sees
none without. It is enough for the t groups that open a sum at least: the variance of each share is
s^2 / t, and what more groups add is noise on top. Of t groups of which c are in league with the
server, which take their own noise off, the rest has the variance s^2 (t - c) / t. Accounts are for
c = 0; groups that a server makes up are such groups.

The sum of t discrete Gaussians is not quite one. With k steps of the grid as the deviation of each,
it is (1/2) e^2-concentrated DP with e <= d / s + tau sqrt(P), where d is the sensitivity, P the
number of weights, and tau = 10 sum over j = 1 .. t - 1 of exp(-2 pi^2 k^2 j / (j + 1)) (Kairouz,
Liu and Steinke 2021, arXiv 2102.06387). For k of LEAST_STEPS and more, tau is below
1e-1000, and left out.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import FederationError
from pluralllm_app.privacy.accounting import epsilon_of, rho_of
from pluralllm_app.settings import FederationSettings

LEAST_STEPS = 2**10  # of the grid, that the noise of one group deviates by
DEVIATIONS = 12  # of one group's noise, for which a sum has room: more come once in 1e32 numbers
_BELOW = 1 - 1e-10  # norms of 1e6 numbers in float64 are off by 1e-10 at most: none is above C


@dataclass(frozen=True)
class GroupNoise:
    """How the updates of a run's groups are clipped and noised."""

    norm: float  # C
    rho: float  # that a round costs, see `accounting`
    delta: float

    @classmethod
    def of(cls, federation: FederationSettings) -> "GroupNoise | None":
        """That of a run; None where it has none.

        It spends the run's epsilon and delta on all of its rounds together.

        Raises:
            MissingPartError: opendp is not installed.
        """
        if federation.noise != "groups":
            return None
        rho = rho_of(federation.epsilon, federation.delta) / federation.rounds
        return cls(federation.update_norm, rho, federation.delta)

    @property
    def multiplier(self) -> float:
        """Standard deviation of the noise of a sum, over its sensitivity."""
        return 1 / sqrt(2 * self.rho)

    @property
    def room(self) -> float:
        """What absolute values a group's vector has, with noise, but for chances of 1e-32."""
        return self.norm * (1 + DEVIATIONS * 3 * self.multiplier)

    def clipped(self, change: Doubles) -> Doubles:
        """An update [P] with an L2 norm of at most C; one that is not finite counts as none.

        It is not refused, since the server would learn that from whose group it did not come.
        """
        length = float(np.linalg.norm(change))
        if not length < inf:
            return np.zeros_like(change)
        return change * min(1.0, self.norm / length * _BELOW) if length else change

    def scale(self, bits: int, parameters: int, threshold: int) -> float:
        """Standard deviation of the noise of one group, in steps of the grid.

        Args:
            bits: of the grid, whose step is 2^-bits. Rounding to it moves each of two neighbours by
                half a step in every number, and so the sum by sqrt(P) more.
            parameters: P.
            threshold: groups at least whose noise is in a sum.

        Raises:
            FederationError: the grid is so coarse that a sum of discrete Gaussians is none.
        """
        sensitivity = 2 * self.norm * 2.0**bits + sqrt(parameters)
        steps = sensitivity * self.multiplier / sqrt(threshold)
        if steps < LEAST_STEPS:
            raise FederationError(
                f"the noise of a group would be {steps:.0f} steps of the sums' grid, fewer than "
                f"{LEAST_STEPS}: raise update-norm"
            )
        return steps

    def spent(self, rounds: int) -> float:
        """The epsilon of so many rounds together, at the run's delta."""
        return epsilon_of(self.rho * rounds, self.delta)
