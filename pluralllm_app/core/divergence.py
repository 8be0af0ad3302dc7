"""The Jensen-Shannon divergence of two answers to the same questions."""

import numpy as np
from numpy.typing import ArrayLike

from pluralllm_app.core.segments import Doubles, Ints, segment_sums


def js_divergence(predicted: ArrayLike, true: ArrayLike, options: Ints) -> Doubles:
    """Jensen-Shannon divergence of each question, [Q], in nats (0 to ln 2).

    Args:
        predicted: [R] shares, flat: the options of question 0, then of question 1, and so on.
        true: [R] other shares of the same options.
        options: [Q] option counts, summing to R.
    """
    p, q = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    both = p + q

    def kl_terms(shares: Doubles) -> Doubles:  # from the middle, both / 2; 0 log 0 = 0
        present = shares > 0
        ratio = np.divide(2 * shares, both, out=np.ones_like(shares), where=present)
        return shares * np.log(ratio)

    # Rounding can leave a divergence of equal shares a hair below zero.
    return np.maximum(segment_sums(kl_terms(p) + kl_terms(q), options) / 2, 0.0)
