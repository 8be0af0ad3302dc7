"""A predictor of latent factors, as it is before anything was learned; it needs no torch."""

import numpy as np

from pluralllm_app.core.segments import Halves, Ints
from pluralllm_app.learning.sums import first_factors
from pluralllm_app.predictors.factors.calibration import CONTEXTS, Calibration
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel


def first_predictor(embeddings: Halves, options: Ints, groups: int) -> FactorsPredictor:
    """Two random factors of a survey; intervals are 1 and 2 standard deviations wide.

    Args:
        embeddings: [rows, D] of all options.
        options: [Q] option counts.
        groups: for how many the factors are drawn.
    """
    text = OptionRows.of(embeddings, options)
    kernel = TextKernel.fit(text, 10)
    rng = np.random.default_rng(0)
    factors = first_factors(len(text), 2, groups, len(kernel.landmarks), rng)
    calibration = Calibration(np.array([[1.0, 2.0]] * len(CONTEXTS)))
    prior = DescriptionPrior(rng.normal(size=(1 + text.dim, 2)), np.array([0.5, 1.0]))
    return FactorsPredictor(factors, kernel, calibration, prior)
