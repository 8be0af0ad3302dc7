"""What sums of one group must fulfil, whatever its answers are: a node may send anything.

Bounds of single numbers are in the learner's `form`. These rules tie the arrays to each other, so
that a group cannot count for more than one, nor say of itself what is no count.
"""

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.factors.packing import unpack_symmetric

ROUNDING = 1e-6


def check_sums(arrays: Arrays) -> None:
    """Raise ValueError, saying which rule is broken, unless arrays can be one group's sums."""
    second = unpack_symmetric(arrays["latent"])
    _demand(abs(second[0, 0] - 1) < ROUNDING and _is_moment(second), "latent is no second moment")
    _demand(_only(arrays["answered"], 0, 1), "answered is not 0 or 1 everywhere")
    unanswered = arrays["answered"] == 0
    for name in ("cross", "gram"):
        _demand(not arrays[name][unanswered].any(), f"{name} has rows that it did not answer")
    diagonal = np.cumsum([0, *range(len(second), 1, -1)])  # in an upper triangle
    _demand(bool((arrays["gram"][:, diagonal] >= 0).all()), "gram has negative squares")
    counted, score = arrays["errors"].sum(axis=1), arrays["score"]
    _demand(_only(counted, 0, 1), "errors do not sum to 0 or 1")
    _demand(_only(score[1:], 0, 1) and score[0] <= score[1], "score is none of one group")
    _check_description(arrays, second)


def _check_description(arrays: Arrays, second: Doubles) -> None:
    described = arrays["described-inner"][0]  # 1 if the group has a description
    _demand(_only(arrays["described-inner"][:1], 0, 1), "described-inner does not count to 0 or 1")
    own = unpack_symmetric(arrays["described-second"])
    _demand(bool(np.allclose(own, described * second, atol=ROUNDING)), "described-second is other")
    least = np.abs(described * second[0]) + ROUNDING  # a direction's entries are at most 1
    _demand(
        bool((np.abs(arrays["described-cross"]) <= least).all()), "described-cross is too large"
    )
    _demand(_only(arrays["described"], 0, described), "described is not 0 or 1")
    _, product, square = arrays["agreement"]
    most = arrays["described"] * np.diag(second)[1:] + ROUNDING
    _demand(bool((square <= most).all()), "agreement has more than the latent's square")
    # |m E[z]| <= sqrt(m^2 E[z^2])
    bound = np.sqrt(np.maximum(arrays["agreement"][0] * np.maximum(square, 0), 0)) + ROUNDING
    _demand(bool((np.abs(product) <= bound).all()), "agreement is no product of two numbers")


def _is_moment(second: Doubles) -> bool:
    return bool(np.linalg.eigvalsh(second).min() > -ROUNDING)


def _only(values: Doubles, *allowed: float) -> bool:
    """Whether each of `values` [n] is one of the numbers `allowed`."""
    return bool((np.abs(values[:, None] - np.array(allowed)) < ROUNDING).any(axis=1).all())


def _demand(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(f"its {fault}")
