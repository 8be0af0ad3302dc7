"""A train group without its own contribution, so that what it says of a model is honest.

The answers of a train group have shaped the factors, and what these predict of the group is better
than what they predict of a new one. The group knows what it contributed to the last sums: it takes
that off again, for the option rows that it answered, and predicts some of its answers from others.
What remains of it is in the variances, the text prior and the other groups' latents.
"""

from dataclasses import dataclass, replace

import numpy as np

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.segments import Doubles, Floats
from pluralllm_app.learning.description_sums import PENALTIES, DescriptionSums, Regression
from pluralllm_app.learning.sums import Part
from pluralllm_app.predictors.base import Prediction
from pluralllm_app.predictors.factors.calibration import BINS, CONTEXTS, count_errors
from pluralllm_app.predictors.factors.model import Answers, Belief, Factors
from pluralllm_app.predictors.factors.posterior import given
from pluralllm_app.predictors.factors.text_kernel import TextKernel
from pluralllm_app.scoring.evaluation import negative_log_likelihood

JUDGED = ("errors", "agreement", "described")  # what groups say that predict themselves
TARGETS = 100  # questions that a group predicts of itself, at most
USUAL = 20  # context questions, as predictors are scored


def judged_shapes(factors: int) -> dict[str, tuple[int, ...]]:
    """The shapes of JUDGED, of `SelfCheck.arrays`, for K factors."""
    return {
        "errors": (len(CONTEXTS), BINS),
        "agreement": (3, len(PENALTIES), factors),
        "described": (1,),
    }


@dataclass(frozen=True, eq=False)
class Others:
    """What was learned, as one group sees it."""

    factors: Factors  # of the n rows that the group answered
    regression: Regression
    honest: bool  # whether nothing of the group's own is in it

    def without(self, part: Part, described: DescriptionSums, change: Doubles) -> "Others":
        """The same without what the group contributed to the sums that it was learned from.

        Args:
            part: its part of the sums.
            described: its part of those by descriptions.
            change: [J, J] that these sums were multiplied by, see `sums.to_standard`.
        """
        factors = self.factors
        precision = np.linalg.inv(factors.covariance)
        natural = np.einsum("rij,rj->ri", precision, factors.mean)
        second = change @ part.second @ change.T
        rest = precision - part.weight[:, None, None] * second
        # Exactly, no precision is below that of the prior; rounding may leave one there.
        values, axes = np.linalg.eigh(rest)
        values = np.maximum(values, 1 / factors.variances.spread.max())
        covariance = (axes / values[:, None, :]) @ axes.transpose(0, 2, 1)
        mean = np.einsum("rij,rj->ri", covariance, natural - part.cross @ change.T)
        sums = self.regression.sums - described.rotate(change)
        return Others(
            replace(factors, mean=mean, covariance=covariance),
            replace(self.regression, sums=sums),
            honest=True,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfCheck:
    """How well a group's answers are predicted from others of them, and its latent from its name.

    It counts only if nothing of the group's own was in what predicted it.
    """

    honest: bool
    errors: Doubles  # [N, B] see `count_errors`; 0 for contexts that it has too few answers for
    score: float  # alignment, 1 - JS distance, mean over the targets
    loss: float  # see `negative_log_likelihood`
    divergence: float  # Jensen-Shannon, mean over the targets, in nats
    agreement: Doubles  # [3, P, K] see `Regression.agreement_of`
    described: bool

    @classmethod
    def of(
        cls,
        others: Others,
        kernel: TextKernel,
        answers: Answers,
        description: Floats | None,
        part: Part,
        rng: np.random.Generator,
    ) -> "SelfCheck":
        """Check a group.

        Args:
            others: what predicts it.
            kernel: of the text.
            answers: of the group, to at least two questions.
            description: [D] of the group, or None.
            part: what it contributes now, of which its latent is taken.
            rng: draws contexts and targets.
        """
        order = rng.permutation(len(answers.text.options))
        targets, rest = np.split(order, [min(TARGETS, len(order) // 2)])
        target = answers.select(np.sort(targets))
        prior = others.regression.latent(description)

        def believe(count: int) -> Belief:
            context = answers.select(np.sort(rest[:count]))
            posterior = given(others.factors, kernel, context, prior)
            return posterior.believe(target.rows, target.text)

        beliefs = {count: believe(count) for count in CONTEXTS if count <= len(rest)}
        errors = np.zeros((len(CONTEXTS), BINS))
        for row, count in zip(errors, CONTEXTS, strict=True):
            if count in beliefs:
                row[:] = count_errors(beliefs[count], target.shares, target.noise)
        belief = beliefs[USUAL] if USUAL in beliefs else believe(USUAL)
        prediction = Prediction(belief.shares, belief.deviation)
        loss = negative_log_likelihood([prediction], target.shares)
        assert loss is not None
        divergence = js_divergence(belief.shares, target.shares, target.text.options)
        return cls(
            honest=others.honest,
            errors=errors,
            score=float((1 - np.sqrt(divergence)).mean()),
            loss=loss,
            divergence=float(divergence.mean()),
            agreement=others.regression.agreement_of(description, part.latent),
            described=description is not None,
        )

    def arrays(self) -> dict[str, Doubles]:
        """What the server sums up, by name."""
        counts = float(self.honest)
        return {
            "errors": counts * self.errors,
            "score": counts * np.array([self.score, 1.0]),
            "agreement": counts * self.agreement,
            "described": np.array([counts * self.described]),
        }
