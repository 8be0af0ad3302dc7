"""The GPO network as a correction of what factors predict.

A row is (embedding, features of the factors' prediction, share). The network's mean is added to the
logarithm of the predicted share of a target row, and its standard deviation multiplies that of the
factors. Both are exactly neutral at first, since the last layer starts at 0: training can only
refine what the factors know.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pluralllm_app.predictors.gpo.network import GPO, segment_softmax
from pluralllm_app.predictors.gpo.rows import embeddings_on, on_device
from pluralllm_app.predictors.refined.rows import FEATURES, Seen
from pluralllm_app.preferences import PreferenceSet, QuestionSet


def neutral_network(dim_x: int, **sizes: int) -> GPO:
    """An untrained network that corrects nothing, for option embeddings of width `dim_x`.

    The other sizes are those of `GPO`.
    """
    network = GPO(dim_x + FEATURES, **sizes)
    last = network.predictor[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    return network


def refine(
    network: GPO, pairs: Sequence[tuple[PreferenceSet, QuestionSet]], seen: Sequence[Seen]
) -> tuple[Tensor, Tensor, Tensor]:
    """Correct what factors predict of several tasks, each with at least one context question.

    Returns:
        shares [T] float64, summing to 1 per question; the standard deviation [T] float64 of each;
        and the option counts [Q] of the target questions, on the CPU. T and Q are those of all
        tasks, one after another.
    """
    device = network.device
    embeddings = embeddings_on(device, [part for pair in pairs for part in pair])
    features = on_device(device, np.concatenate([each.features for each in seen]))
    given = on_device(device, np.concatenate([each.shares for each in seen]))
    rows = network.embed(torch.cat([embeddings, features], dim=-1), given)
    context = [len(known.shares) for known, _ in pairs]
    target = [len(each.shares) - count for each, count in zip(seen, context, strict=True)]
    correction, factor = network.attend(rows, context, target)
    options = torch.from_numpy(np.concatenate([asked.options for _, asked in pairs]))
    predicted = on_device(device, np.concatenate([each.prediction.shares for each in seen]))
    deviation = on_device(device, np.concatenate([_deviation(each) for each in seen]))
    shares = segment_softmax(predicted.log() + correction.double(), options)
    return shares, deviation * factor.double(), options


def _deviation(seen: Seen) -> np.ndarray:
    assert seen.prediction.deviation is not None
    return seen.prediction.deviation
