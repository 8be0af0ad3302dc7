"""The GPO network as a predictor."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pluralllm_app.core.segments import Doubles, segment_rows
from pluralllm_app.predictors.base import Arrays, ArraysError, Prediction, Predictor, check_arrays
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.rows import embeddings_on, on_device, table_of
from pluralllm_app.preferences import PreferenceSet, QuestionSet


class GPOPredictor(Predictor):
    """Predicts with a GPO network on the device that the network is on."""

    kind: ClassVar[str] = "gpo"
    title: ClassVar[str] = "Group preference predictor"
    about: ClassVar[str] = (
        "It is the transformer of PluralLLM "
        "([arXiv:2503.09925](https://arxiv.org/abs/2503.09925)), trained on other groups."
    )
    least_context: ClassVar[int] = 1

    def __init__(self, network: GPO) -> None:
        self.network = network

    def predict(self, context: PreferenceSet, target: QuestionSet) -> Prediction:
        """Predict the target's shares and their standard deviations; needs a context question."""
        return self.predict_each([(context, target)])[0]

    @torch.inference_mode()
    def predict_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Prediction]:
        """Predict each pair; a question that is a target of several is embedded once."""
        device = self.network.device
        table_of([part for pair in pairs for part in pair])
        every = _union([target for _, target in pairs])
        x = embeddings_on(device, [every])
        embedded = self.network.embed(x, x.new_zeros(len(x)))
        predictions = []
        for context, target in pairs:
            given = self.network.embed(
                embeddings_on(device, [context]), on_device(device, context.shares)
            )
            place = np.searchsorted(every.first_rows, target.first_rows)
            asked = on_device(device, segment_rows(every.starts[place], target.options))
            rows = torch.cat([given, embedded[asked]])
            counts = [len(given)], [len(asked)]
            shares, std = self.network(rows, *counts, torch.from_numpy(target.options))
            predictions.append(Prediction(_doubles(shares), _doubles(std)))
        return predictions

    def config(self) -> dict[str, Any]:
        """The sizes of the network."""
        return dict(self.network.sizes)

    def arrays(self) -> Arrays:
        """The parameters under their published names."""
        return {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Make the network of these sizes and parameters; they must have its names and shapes."""
        for size in ("num_layers", "emb_depth"):
            if int(config.get(size, 0)) > len(arrays):
                raise ArraysError(f"there are {len(arrays)} arrays for {size} = {config[size]}")
        with torch.device("meta"):  # without memory: sizes of a config are not to be trusted
            network = GPO(**config)
        expected = network.state_dict()
        check_arrays(arrays, {name: tuple(value.shape) for name, value in expected.items()})
        given = {name: torch.tensor(value) for name, value in arrays.items()}
        network.load_state_dict(given, assign=True)
        return cls(network.eval())


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
