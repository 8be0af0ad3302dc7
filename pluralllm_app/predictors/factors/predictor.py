"""The latent-factor model as a predictor: a new group follows in closed form from its context."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays, Prediction, Predictor, check_arrays
from pluralllm_app.predictors.factors.model import (
    POWER,
    Answers,
    Factors,
    Latent,
    Variances,
    predict,
)
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel
from pluralllm_app.preferences import PreferenceSet, QuestionSet


class FactorsPredictor(Predictor):
    """Predicts by offsets and loadings that all groups share, and what is the group's own.

    A group of which no answer is known gets the population's answers.
    """

    kind: ClassVar[str] = "factors"
    title: ClassVar[str] = "Latent factors of preferences"
    about: ClassVar[str] = (
        "It is a latent-factor model of transformed shares, learned by sums over other groups, "
        "with a prior from the text of questions and options."
    )

    def __init__(self, factors: Factors, kernel: TextKernel) -> None:
        self.factors = factors
        self.kernel = kernel

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares and their standard deviations; the context may be empty."""
        rows = len(self.factors.mean)
        if len(target.embeddings) != rows:
            raise ValueError(
                f"this predictor was made for a survey with {rows} options, and is asked for one "
                f"with {len(target.embeddings)}"
            )
        latent = Latent.standard(self.factors.mean.shape[1] - 1)
        known = Answers.of(context.rows, option_rows(context), context.shares)
        belief = predict(self.factors, self.kernel, known, target.rows, option_rows(target), latent)
        return Prediction(belief.shares, belief.deviation)

    def config(self) -> dict[str, Any]:
        """Sizes, the power that shares are raised to, and the kernel's length-scale."""
        rows, width = self.factors.mean.shape
        landmarks, twice = self.kernel.landmarks.shape
        return {
            "rows": rows,
            "factors": width - 1,
            "landmarks": landmarks,
            "dim_x": twice // 2,
            "power": POWER,
            "length": self.kernel.length,
        }

    def arrays(self) -> Arrays:
        """Posterior and variances, as `pack_factors` has them, and the kernel's landmarks."""
        return {**pack_factors(self.factors), "landmarks": self.kernel.landmarks}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Undo `config` and `arrays`."""
        rows, width = int(config["rows"]), int(config["factors"]) + 1
        landmarks, twice = int(config["landmarks"]), 2 * int(config["dim_x"])
        if config["power"] != POWER:
            raise ValueError(f"power is {config['power']}, this version of the app has {POWER}")
        shapes = {**factor_shapes(rows, width, landmarks), "landmarks": (landmarks, twice)}
        check_arrays(arrays, shapes)
        kernel = TextKernel(arrays["landmarks"].astype(np.float32), float(config["length"]))
        return cls(unpack_factors(arrays), kernel)


def option_rows(questions: QuestionSet) -> OptionRows:
    """The options of some questions as the text kernel sees them."""
    return OptionRows.of(questions.embeddings[questions.rows], questions.options)


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
        "covariance": (rows, width * (width + 1) // 2),
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
