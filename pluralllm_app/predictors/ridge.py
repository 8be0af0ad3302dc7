"""Predict a group by ridge regression on the option embeddings of its own context."""

from typing import ClassVar

import numpy as np

from pluralllm_app.core.segments import Doubles, segment_centred
from pluralllm_app.predictors.base import Prediction
from pluralllm_app.predictors.uniform import StatelessBaseline, distributions, uniform_shares
from pluralllm_app.preferences import PreferenceSet, QuestionSet

PENALTIES = np.logspace(4, -2, 25)  # relative to a row's mean squared norm


class Ridge(StatelessBaseline):
    """Ridge regression from option embeddings to shares, on the new group's context alone.

    share_r = 1 / options + w . (x_r - mean of x over the question's options), with w minimising
    the squared error over the context's options plus penalty * |w|^2. The penalty is the one of
    PENALTIES with the least squared error when each context question is left out in turn, in
    closed form: with A = (X X^T + penalty)^-1 on the context's options and A_q its block of
    question q, the left-out residual of q is A_q^-1 (A y)_q (Allen's PRESS by blocks). Predictions
    are clipped at 0 and rescaled. Needs nothing pooled.
    """

    kind: ClassVar[str] = "ridge"
    title: ClassVar[str] = "Ridge"
    about: ClassVar[str] = (
        "It fits a linear rule from the embeddings of the context questions' options to the "
        "group's answers, and predicts by that rule."
    )

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Fit the rule on the context, and apply it to the target."""
        x, options = centred_embeddings(context), context.options
        y = context.shares.astype(np.float64) - uniform_shares(options)
        eigenvalues, vectors = np.linalg.eigh(x @ x.T)
        scale = np.einsum("rd,rd->", x, x) / max(len(x), 1) or 1.0

        # Options of a question in a square block; a missing option gets the row of the identity.
        slot = np.arange(options.max(initial=0))
        missing = slot >= options[:, None]  # [C, most options]
        row = np.where(missing, 0, context.starts[:, None] + slot)
        outside = missing[:, :, None] | missing[:, None, :]
        identity = np.eye(len(slot))

        def left_out_error(penalty: float) -> float:
            inverse = (vectors / (eigenvalues + penalty)) @ vectors.T
            blocks = np.where(outside, identity, inverse[row[:, :, None], row[:, None, :]])
            fitted = np.where(missing, 0.0, (inverse @ y)[row])
            return float((np.linalg.solve(blocks, fitted[:, :, None]) ** 2).sum())

        penalty = min(PENALTIES * scale, key=left_out_error)
        weights = x.T @ (vectors @ ((y @ vectors) / (eigenvalues + penalty)))
        deviation = centred_embeddings(target) @ weights
        return Prediction(distributions(uniform_shares(target.options) + deviation, target.options))


def centred_embeddings(questions: QuestionSet) -> Doubles:
    """Embeddings [R, dim_x] of the options minus the mean over those of the same question."""
    x = questions.embeddings[questions.rows].astype(np.float64)
    return segment_centred(x, questions.options)
