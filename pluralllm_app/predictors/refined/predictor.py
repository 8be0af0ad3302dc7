"""Factors, refined by a network, as a predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.predictors.base import (
    Arrays,
    ArraysError,
    Conditioned,
    ContextPredictor,
    Prediction,
)
from pluralllm_app.predictors.factors.predictor import FactorsOfGroup, FactorsPredictor
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor, check_dim
from pluralllm_app.predictors.gpo.rows import embeddings_on, on_device, table_scale
from pluralllm_app.predictors.pairs import agreeing
from pluralllm_app.predictors.refined.network import corrected, refine
from pluralllm_app.predictors.refined.rows import (
    FEATURES,
    Seen,
    context_features,
    look_each,
    target_features,
)
from pluralllm_app.preferences import PreferenceSet, QuestionSet

_PREFIXES = ("factors", "network")


class RefinedPredictor(ContextPredictor):
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

    def __init__(self, factors: FactorsPredictor, network: GPO, scale: float | None = None) -> None:
        """Make one of both parts; `scale` is that of `embeddings_on`."""
        self.factors = factors
        self.network = network
        self._scale = scale

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares with their uncertainty; the context may be empty."""
        return self.predict_each([(context, target)])[0]

    @torch.inference_mode()
    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict for several pairs, of which each question's text is read once."""
        seen = look_each(self.factors, pairs)
        return [self._refined(pair, each) for pair, each in zip(pairs, seen, strict=True)]

    def _refined(self, pair: tuple[PreferenceSet, QuestionSet], seen: Seen) -> Prediction:
        if not len(pair[0]):
            return seen.prediction
        shares = refine(self.network, [pair], [seen])[0].cpu().numpy()
        return refined(seen.prediction, shares, pair[1].options)

    @property
    def heeds_descriptions(self) -> bool:
        """Whether the train groups' descriptions told the factors anything about them."""
        return self.factors.heeds_descriptions

    @torch.inference_mode()
    def condition(self, context: PreferenceSet) -> Conditioned:
        """Let factors and network read a group's answers, of which there may be none."""
        before = self.factors.condition(context.select(np.arange(0)))
        after = self.factors.condition(context)
        if not len(context):
            return after
        x = embeddings_on(self.network.device, [context], self._scale)
        features = on_device(x.device, context_features(context, before.believe(context)))
        rows = torch.cat([x, features], dim=-1)
        given = self.network.embed(rows, on_device(x.device, context.shares))
        read = self.network.remember(given)
        return RefinedOfGroup(before, after, self.network, self._scale, read)

    def beyond(self, survey: QuestionSet) -> Self:
        """The same predictor, which takes of a new question what its text says of it."""
        check_dim(self.network.dim_x - FEATURES, survey)
        return type(self)(self.factors.beyond(survey), self.network, table_scale(survey.embeddings))

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


@dataclass(frozen=True, eq=False)
class RefinedOfGroup:
    """Factors before and after a group's answers, and what the network has read of them."""

    before: FactorsOfGroup
    after: FactorsOfGroup
    network: GPO
    scale: float | None
    read: list[Tensor]

    @torch.inference_mode()
    def predict(self, target: QuestionSet) -> Prediction:
        """Predict the target's shares with their uncertainty."""
        text = self.after.predictor.text_of([target])(target)
        belief = self.after.believe(target, text)
        prediction = self.after.prediction_of(belief)
        x = embeddings_on(self.network.device, [target], self.scale)
        features = on_device(x.device, target_features(self.before.believe(target, text), belief))
        predicted = on_device(x.device, prediction.shares)
        rows = self.network.embed(torch.cat([x, features], dim=-1), predicted.float())
        correction, _ = self.network.recall(self.read, rows)
        shares = corrected(predicted, correction, torch.from_numpy(target.options))
        return refined(prediction, shares.cpu().numpy(), target.options)


def refined(before: Prediction, shares: Doubles, options: Ints) -> Prediction:
    """The prediction of factors with other shares; what is uncertain grows with the share."""
    assert before.deviation is not None
    assert before.intervals is not None
    ratio = shares / before.shares
    intervals: Doubles = np.minimum(before.intervals * ratio, 1.0)
    deviation = before.deviation * ratio
    after = replace(before, shares=shares, deviation=deviation, intervals=intervals)
    return agreeing(after, options)
