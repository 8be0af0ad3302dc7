"""Factors as named arrays; of symmetric matrices only the upper triangles are kept."""

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.factors.model import Factors, Variances


def triangle(width: int) -> int:
    """How many numbers the upper triangle of a symmetric matrix has."""
    return width * (width + 1) // 2


def pack_symmetric(matrices: Doubles) -> Doubles:
    """The upper triangles [..., J (J + 1) / 2] of symmetric matrices [..., J, J]."""
    upper = np.triu_indices(matrices.shape[-1])
    packed: Doubles = matrices[..., upper[0], upper[1]]
    return packed


def unpack_symmetric(packed: Doubles) -> Doubles:
    """Undo `pack_symmetric`."""
    width = int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2)
    matrices = np.empty((*packed.shape[:-1], width, width))
    first, second = np.triu_indices(width)
    matrices[..., first, second] = packed
    matrices[..., second, first] = packed
    return matrices


def factor_shapes(rows: int, width: int, landmarks: int) -> dict[str, tuple[int, ...]]:
    """The shapes of `pack_factors` for R option rows, J = `width` and M landmarks."""
    return {
        "mean": (rows, width),
        "covariance": (rows, triangle(width)),
        "weights": (landmarks, width),
        "variances": (2 + 2 * width,),
    }


def pack_factors(factors: Factors) -> dict[str, Doubles]:
    """Factors as arrays, see `factor_shapes`; variances are noise, own, spread and text."""
    v = factors.variances
    return {
        "mean": factors.mean,
        "covariance": pack_symmetric(factors.covariance),
        "weights": factors.weights,
        "variances": np.concatenate([[v.noise, v.own], v.spread, v.text]),
    }


def unpack_factors(arrays: Arrays) -> Factors:
    """Undo `pack_factors`."""
    noise, own, *rest = arrays["variances"]
    spread, text = np.split(np.array(rest), 2)
    return Factors(
        mean=arrays["mean"],
        covariance=unpack_symmetric(arrays["covariance"]),
        weights=arrays["weights"],
        variances=Variances(noise=float(noise), own=float(own), spread=spread, text=text),
    )
