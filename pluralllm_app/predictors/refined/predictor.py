"""Factors, refined by a network, as a predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays, ArraysError, Prediction, Predictor
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.refined.network import refine
from pluralllm_app.predictors.refined.rows import FEATURES, Seen, look_each
from pluralllm_app.preferences import PreferenceSet, QuestionSet

_PREFIXES = ("factors", "network")


class RefinedPredictor(Predictor):
    """Predicts by factors, which a network corrects that sees the context as well.

    Deviations and intervals are those of the factors, in proportion to the share. Without any
    answer of the group the factors' prediction stands as it is.
    """

    kind: ClassVar[str] = "refined"
    title: ClassVar[str] = "Group preference predictor on top of latent factors"
    about: ClassVar[str] = (
        "It is a latent-factor model of square-root shares, learned by sums over other groups, "
        "whose predictions a transformer corrects that was trained on other groups as in PluralLLM "
        "([arXiv:2503.09925](https://arxiv.org/abs/2503.09925))."
    )

    def __init__(self, factors: FactorsPredictor, network: GPO) -> None:
        self.factors = factors
        self.network = network

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares with their uncertainty; the context may be empty."""
        return self.predict_each([(context, target)])[0]

    @torch.inference_mode()
    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict for several pairs, of which each question's text is read once."""
        seen = look_each(self.factors, pairs)
        return [self._refined(pair, each) for pair, each in zip(pairs, seen, strict=True)]

    def _refined(self, pair: tuple[PreferenceSet, QuestionSet], seen: Seen) -> Prediction:
        before = seen.prediction
        if not len(pair[0]):
            return before
        shares = refine(self.network, [pair], [seen])[0].cpu().numpy()
        assert before.deviation is not None
        assert before.intervals is not None
        ratio = shares / before.shares
        intervals: Doubles = np.minimum(before.intervals * ratio, 1.0)
        return replace(
            before, shares=shares, deviation=before.deviation * ratio, intervals=intervals
        )

    def config(self) -> dict[str, Any]:
        """Those of the factors and of the network, each under its name."""
        return {"factors": self.factors.config(), "network": GPOPredictor(self.network).config()}

    def arrays(self) -> Arrays:
        """Those of the factors and of the network, each with its name as a prefix."""
        parts = (self.factors, GPOPredictor(self.network))
        return {
            f"{prefix}.{name}": array
            for prefix, part in zip(_PREFIXES, parts, strict=True)
            for name, array in part.arrays().items()
        }

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Undo `config` and `arrays`."""
        parts: dict[str, dict[str, Any]] = {prefix: {} for prefix in _PREFIXES}
        for name, array in arrays.items():
            prefix, _, rest = name.partition(".")
            parts.setdefault(prefix, {})[rest] = array
        factors = FactorsPredictor.restore(config["factors"], parts["factors"])
        network = GPOPredictor.restore(config["network"], parts["network"]).network
        if unknown := [prefix for prefix in parts if prefix not in _PREFIXES]:
            raise ArraysError(f"{unknown[0]} is not known")
        dim = factors.kernel.landmarks.shape[1] // 2
        if network.dim_x != dim + FEATURES:
            raise ValueError(
                f"the network reads rows of {network.dim_x} numbers, and those of this survey have "
                f"{dim} + {FEATURES}"
            )
        return cls(factors, network)
