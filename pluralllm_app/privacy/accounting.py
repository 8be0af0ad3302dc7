"""Discrete Gaussian noise, and what it costs in epsilon and delta, both by opendp.

Costs add up as rho, of zero-concentrated differential privacy (Bun and Steinke 2016, arXiv
1605.02065): noise of standard deviation s on what one unit changes by at most d, in L2 norm, costs
rho = d^2 / (2 s^2) (for whole numbers: Canonne, Kamath and Steinke 2020, arXiv 2004.00010), and two
draws of rho_1 and rho_2 cost rho_1 + rho_2 together. opendp says which epsilon that is at a delta.
"""

from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from pluralllm_app.core.parts import need
from pluralllm_app.core.segments import Ints

if TYPE_CHECKING:
    from types import ModuleType

_ROUNDING = 1e-9  # of rho, so that no more than epsilon is ever computed from it again


@lru_cache(maxsize=256)
def rho_of(epsilon: float, delta: float) -> float:
    """The most that draws may cost together, so that they are (epsilon, delta)-private."""
    dp = _opendp()

    def fixed(scale: float) -> Any:
        return dp.combinators.make_fix_delta(_private(dp, scale), delta)

    scale = dp.mod.binary_search_param(fixed, d_in=1.0, d_out=(epsilon, delta), T=float)
    return float((1 - _ROUNDING) / (2 * scale**2))


@lru_cache(maxsize=256)
def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon of draws that cost `rho` together, at `delta`; 0 without a cost."""
    if not rho:
        return 0.0
    profile = _private(_opendp(), 1 / sqrt(2 * rho)).map(1.0)
    return float(profile.epsilon(delta))


def discrete_gaussian(values: Ints, scale: float) -> Ints:
    """Add noise to each of `values` [n], by a cryptographic generator.

    Args:
        values: whole numbers.
        scale: standard deviation.
    """
    dp = _opendp()
    vectors = dp.domains.vector_domain(dp.domains.atom_domain(T="i64"))
    noised = dp.measurements.make_gaussian(vectors, dp.metrics.l2_distance(T="f64"), scale=scale)
    return np.array(noised(values.tolist()), np.int64)


def _private(dp: "ModuleType", scale: float) -> Any:
    """A discrete Gaussian on a whole number, whose cost is told as a curve of (epsilon, delta)."""
    space = dp.domains.atom_domain(T="i64"), dp.metrics.absolute_distance(T="f64")
    return dp.combinators.make_zCDP_to_approxDP(dp.measurements.make_gaussian(*space, scale=scale))


def _opendp() -> "ModuleType":
    """opendp, with what it calls contributed switched on; raises MissingPartError."""
    need("privacy", "noise for differential privacy")
    import opendp.combinators  # not at the top: it takes a while; its prelude takes seconds more
    import opendp.measurements

    opendp.mod.enable_features("contrib")
    return opendp
