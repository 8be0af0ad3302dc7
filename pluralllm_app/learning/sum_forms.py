"""What the sums of one group look like, and what a secure sum has room for.

Bounds that a plain sum is checked against are in `sum_rules`; these are wider, and there for fixed
point alone. They follow from what every group was sent: a latent's prior is standard and an answer
weighs at most 1 / noise. A group whose numbers are larger refuses, and says which.
"""

from collections.abc import Mapping

import numpy as np

from pluralllm_app.errors import FederationError
from pluralllm_app.learning.base import ArrayForm
from pluralllm_app.learning.self_check import judged_shapes
from pluralllm_app.learning.sums import LEAST
from pluralllm_app.predictors.factors.model import Factors
from pluralllm_app.predictors.factors.packing import triangle

LATENT = 32.0  # standard deviations from the prior's mean
ERROR = 4.0  # roots of shares, of which none is above 1, less what predicts them


def array_forms(
    factors: Factors, own: float, own_weights: int, dim: int
) -> Mapping[str, ArrayForm]:
    """By name, see `sums.Sums`, `DescriptionSums` and `SelfCheck.arrays`.

    Args:
        factors: that the group was sent: R rows, J = 1 + K.
        own: scale of what is the group's own.
        own_weights: how many weights describe it.
        dim: D, of the description's embedding.

    Raises:
        FederationError: the noise of the factors is less than any run gives.
    """
    if not factors.variances.noise >= LEAST:  # not: it may be none
        raise FederationError(
            f"the factors that were sent have noise below {LEAST:g}, which no run gives: in a "
            "secure sum the numbers of most groups would be rounded to 0"
        )
    rows, width = factors.mean.shape
    upper, moment = triangle(width), LATENT**2
    weight = 1 / factors.variances.noise
    misfit = rows * weight * ERROR**2

    def form(
        *shape: int, least: float = -np.inf, most: float = np.inf, room: float | None = None
    ) -> ArrayForm:
        return ArrayForm(np.dtype(np.float64), shape, least, most, room)

    judged = judged_shapes(width - 1)
    return {
        "groups": form(1, least=1, most=1),
        "answered": form(rows, least=0, most=1),
        "cross": form(rows, width, room=weight * ERROR * LATENT),
        "gram": form(rows, upper, room=weight * moment),
        "latent": form(upper, room=moment),
        "residual": form(3, least=0, room=misfit),
        "own": form(2, least=0, room=own * misfit + (1 + own) * own_weights),
        "described-inner": form(triangle(1 + dim), least=-1, most=1),
        "described-cross": form(1 + dim, width, room=LATENT),
        "described-second": form(upper, room=moment),
        "errors": form(*judged["errors"], least=0, most=1),
        "score": form(2, least=0, most=1),
        "agreement": form(*judged["agreement"], room=moment),
        "described": form(*judged["described"], least=0, most=1),
    }
