"""What sums of one group must fulfil, whatever its answers are: a node may send anything.

Bounds of single numbers are in the learner's `form`. These rules tie the arrays to each other and
to the factors that the group was sent, so that a group cannot count for more than one, weigh its
answers more than the noise allows, nor say of itself what is no count.
"""

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.factors.model import Factors
from pluralllm_app.predictors.factors.packing import unpack_symmetric

ROUNDING = 1e-6


def check_sums(factors: Factors, own_scale: float, own_weights: int, arrays: Arrays) -> None:
    """Raise ValueError, saying which rule is broken, unless arrays can be one group's sums.

    Args:
        factors: that the group was sent.
        own_scale: of what is the group's own.
        own_weights: how many weights describe it.
        arrays: what the group answered, each of its form.
    """
    second = unpack_symmetric(arrays["latent"])
    _demand(abs(second[0, 0] - 1) < ROUNDING and _is_moment(second), "latent is no second moment")
    _demand(_only(arrays["answered"], 0, 1), "answered is not 0 or 1 everywhere")
    unanswered = arrays["answered"] == 0
    for name in ("cross", "gram"):
        _demand(not arrays[name][unanswered].any(), f"{name} has rows that it did not answer")
    counted, score = arrays["errors"].sum(axis=1), arrays["score"]
    _demand(_only(counted, 0, 1), "errors do not sum to 0 or 1")
    _demand(_only(score[1:], 0, 1) and score[0] <= score[1], "score is none of one group")
    _check_weights(arrays, factors.variances.noise)
    _demand(arrays["own"][1] == own_weights, f"own is not of {own_weights} weights")
    _check_misfit(arrays, second, factors, own_scale)
    _check_description(arrays, second)


def _check_weights(arrays: Arrays, noise: float) -> None:
    """Each answer weighs 1 / (noise + sampling), so that most sums follow from the weights."""
    answered, gram = arrays["answered"] == 1, arrays["gram"]
    weight = gram[:, 0]  # times 1, the second moment of 1
    _demand(
        bool((weight[answered] > 0).all() and (weight <= (1 + ROUNDING) / noise).all()),
        "gram weighs answers by more than the noise allows",
    )
    product = weight[:, None] * arrays["latent"]
    _demand(np.allclose(gram, product, rtol=ROUNDING, atol=ROUNDING), "gram is no moment of latent")
    sums = np.array([weight.sum(), answered.sum() - noise * weight.sum()])
    _demand(
        np.allclose(arrays["residual"][1:], sums, rtol=ROUNDING, atol=ROUNDING * (1 + sums[0])),
        "residual does not follow from its weights",
    )


def _check_misfit(arrays: Arrays, second: Doubles, factors: Factors, own_scale: float) -> None:
    """A group's posterior, whose prior is standard, fits no worse than z = 0 and f = 0 would."""
    answered, residual, own = arrays["answered"] == 1, arrays["residual"][0], arrays["own"]
    weight, mean = arrays["gram"][answered, 0], factors.mean[answered]
    # No root of a share less that of 1 / options is above 1.
    uncertain = weight @ factors.covariance[answered, 0, 0]
    objective = weight @ (1 + np.abs(mean[:, 0])) ** 2 + uncertain
    latent = second[1:, 1:] - np.outer(second[0, 1:], second[0, 1:])  # its covariance
    _demand(
        bool((np.linalg.eigvalsh(latent) <= 1 + ROUNDING).all())
        and second[0, 1:] @ second[0, 1:] <= objective * (1 + ROUNDING),
        "latent is larger than answers can make it",
    )
    explained = weight @ (mean @ second[0]) ** 2
    most = (np.sqrt(objective) + np.sqrt(explained)) ** 2 + own_scale * weight.sum()
    _demand(residual <= most * (1 + ROUNDING), "residual is larger than answers can make it")
    _demand(
        own[0] <= own_scale * (objective + own[1]) * (1 + ROUNDING),
        "own is larger than answers can make it",
    )
    # |w E[e (1, z)]| <= w sqrt(E[e^2] E[(1, z)^2])
    products = (arrays["cross"][answered] ** 2 / weight[:, None]).sum(0)
    _demand(
        bool((products <= residual * np.diag(second) * (1 + ROUNDING) + ROUNDING).all()),
        "cross is larger than its residual",
    )


def _check_description(arrays: Arrays, second: Doubles) -> None:
    described = arrays["described-inner"][0]  # 1 if the group has a description
    _demand(_only(arrays["described-inner"][:1], 0, 1), "described-inner does not count to 0 or 1")
    own = unpack_symmetric(arrays["described-second"])
    _demand(np.allclose(own, described * second, atol=ROUNDING), "described-second is other")
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
