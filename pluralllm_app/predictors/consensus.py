"""Predict a group by the mean of the train groups' answers, plain or weighted by likeness."""

from typing import ClassVar

import numpy as np

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Prediction
from pluralllm_app.predictors.pool import PoolingBaseline
from pluralllm_app.predictors.uniform import distributions
from pluralllm_app.preferences import PreferenceSet, QuestionSet

# The first value that was tried; it was never tuned.
TEMPERATURE = 0.02  # nats of divergence that lower a train group's weight by a factor e


class Consensus(PoolingBaseline):
    """Mean of the train groups' answers to the same question; uniform where none answered it.

    Share of option r = mean over the groups g that answered of share_gr. Needs the train groups'
    answers pooled, and nothing of the new group.
    """

    kind: ClassVar[str] = "consensus"
    title: ClassVar[str] = "Consensus"
    about: ClassVar[str] = (
        "It predicts the mean of the answers that other groups gave to the same question."
    )

    def weights(self, context: PreferenceSet) -> Doubles:
        """[G] weight of each train group."""
        return np.ones(len(self.pool.groups))

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the weighted mean of all train groups but the context's own."""
        weights = self.weights(context) * self.pool.others(context.group)
        # Scaling to sum 1 divides by the weight of the groups that answered.
        total = weights @ self.pool.shares[:, self.pool.rows(target)]
        return Prediction(distributions(total, target.options))


class WeightedConsensus(Consensus):
    """The consensus, with train groups that answer the context alike weighing more.

    weight_g = exp(-d_g / TEMPERATURE), where d_g is the mean Jensen-Shannon divergence (nats)
    between g and the new group over the context questions both answered. A train group that
    answered none of them gets the mean d of the others, because it may be the only one that
    answered a target. Needs the train groups' answers pooled, and the new group's context where
    they are.
    """

    kind: ClassVar[str] = "weighted-consensus"
    title: ClassVar[str] = "Weighted consensus"
    about: ClassVar[str] = (
        "It predicts the mean of the answers that other groups gave to the same question; groups "
        "that answer the context questions alike weigh more."
    )

    def weights(self, context: PreferenceSet) -> Doubles:
        """[G] weight of each train group."""
        pool, groups = self.pool, len(self.pool.groups)
        known = np.tile(context.shares, groups)
        answers = pool.shares[:, pool.rows(context)].ravel()
        divergence = js_divergence(answers, known, np.tile(context.options, groups))
        common = pool.answered[:, context.first_rows]  # [G, C]
        total = (divergence.reshape(common.shape) * common).sum(1)
        count = common.sum(1)
        near = pool.others(context.group) & (count > 0)
        middling = (total[near] / count[near]).mean() if near.any() else 0.0
        mean = np.divide(total, count, out=np.full(groups, middling), where=count > 0)
        weights: Doubles = np.exp(-mean / TEMPERATURE)
        return weights
