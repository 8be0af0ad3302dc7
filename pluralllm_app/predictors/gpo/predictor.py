"""The GPO network as a predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pluralllm_app.core.segments import Doubles, segment_rows
from pluralllm_app.predictors.base import (
    Arrays,
    ContextPredictor,
    Prediction,
    check_arrays,
)
from pluralllm_app.predictors.gpo.network import GPO, segment_softmax
from pluralllm_app.predictors.gpo.rows import embeddings_on, on_device, table_of, table_scale
from pluralllm_app.predictors.gpo.shapes import parameter_shapes
from pluralllm_app.preferences import PreferenceSet, QuestionSet


class GPOPredictor(ContextPredictor):
    """Predicts with a GPO network on the device that the network is on."""

    kind: ClassVar[str] = "gpo"
    title: ClassVar[str] = "Group preference predictor"
    about: ClassVar[str] = (
        "It is the transformer of PluralLLM "
        "([arXiv:2503.09925](https://arxiv.org/abs/2503.09925)), trained on other groups."
    )
    least_context: ClassVar[int] = 1

    def __init__(self, network: GPO, scale: float | None = None) -> None:
        """Make one of a network; `scale` is that of `embeddings_on`."""
        self.network = network
        self._scale = scale

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares and their standard deviations; needs a context question."""
        return self.predict_each([(context, target)])[0]

    @torch.inference_mode()
    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict each pair; a question that is a target of several is embedded once."""
        device = self.network.device
        table_of([part for pair in pairs for part in pair])
        every = _union([target for _, target in pairs])
        x = embeddings_on(device, [every], self._scale)
        embedded = self.network.embed(x, x.new_zeros(len(x)))
        predictions = []
        for context, target in pairs:
            given = self.network.embed(
                embeddings_on(device, [context], self._scale), on_device(device, context.shares)
            )
            place = np.searchsorted(every.first_rows, target.first_rows)
            asked = on_device(device, segment_rows(every.starts[place], target.options))
            rows = torch.cat([given, embedded[asked]])
            counts = [len(given)], [len(asked)]
            shares, std = self.network(rows, *counts, torch.from_numpy(target.options))
            predictions.append(Prediction(_doubles(shares), _doubles(std)))
        return predictions

    @torch.inference_mode()
    def condition(self, context: PreferenceSet) -> "GPOOfGroup":
        """Let the network read a group's answers, of which there must be some."""
        if not len(context):
            raise ValueError("a prediction needs at least one context question")
        x = embeddings_on(self.network.device, [context], self._scale)
        given = self.network.embed(x, on_device(x.device, context.shares))
        return GPOOfGroup(self.network, self._scale, self.network.remember(given))

    def beyond(self, survey: QuestionSet) -> Self:
        """The same predictor, which scales the vectors of new questions as those of the survey."""
        check_dim(self.network.dim_x, survey)
        return type(self)(self.network, table_scale(survey.embeddings))

    def config(self) -> dict[str, Any]:
        """The sizes of the network."""
        return dict(self.network.sizes)

    def arrays(self) -> Arrays:
        """The parameters under their published names."""
        return {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Make the network of these sizes and parameters; they must have its names and shapes."""
        check_arrays(arrays, parameter_shapes(len(arrays), **config), np.float32)
        with torch.device("meta"):  # without memory: sizes of a config are not to be trusted
            network = GPO(**config)
        given = {name: torch.tensor(value) for name, value in arrays.items()}
        network.load_state_dict(given, assign=True)
        return cls(network.eval())


@dataclass(frozen=True, eq=False)
class GPOOfGroup:
    """The network, and what it has read of one group."""

    network: GPO
    scale: float | None
    read: list[Tensor]

    @torch.inference_mode()
    def predict(self, target: QuestionSet) -> Prediction:
        """Predict the target's shares and their standard deviations."""
        x = embeddings_on(self.network.device, [target], self.scale)
        rows = self.network.embed(x, x.new_zeros(len(x)))
        mean, std = self.network.recall(self.read, rows)
        shares = segment_softmax(mean, torch.from_numpy(target.options))
        return Prediction(_doubles(shares), _doubles(std))


def check_dim(dim: int, questions: QuestionSet) -> None:
    """Raise ValueError unless the questions have vectors of `dim` numbers."""
    if questions.embeddings.shape[1] != dim:
        raise ValueError(
            f"this predictor reads vectors of {dim} numbers, and the questions have ones of "
            f"{questions.embeddings.shape[1]}"
        )


def _union(sets: Sequence[QuestionSet]) -> QuestionSet:
    """Every question of `sets` once, in the order of their rows."""
    first_rows, index = np.unique(
        np.concatenate([questions.first_rows for questions in sets]), return_index=True
    )
    return QuestionSet(
        embeddings=sets[0].embeddings,
        questions=np.concatenate([questions.questions for questions in sets])[index],
        first_rows=first_rows,
        options=np.concatenate([questions.options for questions in sets])[index],
    )


def _doubles(values: Tensor) -> Doubles:
    return values.cpu().numpy().astype(np.float64)
