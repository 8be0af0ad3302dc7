"""The GPO network as a correction of what factors predict.

A row is (embedding, features of the factors' prediction, share). The network's mean is added to the
logarithm of the predicted share of a target row. It is exactly neutral at first, since the last
layer starts at 0: training can only refine what the factors know. How sure a prediction is, the
factors alone say, whose intervals are calibrated; the network's other output is not used.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pluralllm_app.predictors.gpo.network import GPO, segment_softmax
from pluralllm_app.predictors.gpo.rows import embeddings_on, on_device
from pluralllm_app.predictors.refined.rows import FEATURES, Seen
from pluralllm_app.preferences import PreferenceSet, QuestionSet

TINY = 1e-12  # share
SOFT = 1e-5  # divergence: the root's gradient has no bound at 0


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
) -> tuple[Tensor, Tensor]:
    """Correct what factors predict of several tasks, each with at least one context question.

    Returns:
        shares [T] float64, summing to 1 per question, and the option counts [Q] of the target
        questions, on the CPU. T and Q are those of all tasks, one after another.
    """
    device = network.device
    embeddings = embeddings_on(device, [part for pair in pairs for part in pair])
    features = on_device(device, np.concatenate([each.features for each in seen]))
    given = on_device(device, np.concatenate([each.shares for each in seen]))
    rows = network.embed(torch.cat([embeddings, features], dim=-1), given)
    context = [len(known.shares) for known, _ in pairs]
    target = [len(each.shares) - count for each, count in zip(seen, context, strict=True)]
    correction, _ = network.attend(rows, context, target)
    options = torch.from_numpy(np.concatenate([asked.options for _, asked in pairs]))
    predicted = on_device(device, np.concatenate([each.prediction.shares for each in seen]))
    return corrected(predicted, correction, options), options


def corrected(predicted: Tensor, correction: Tensor, options: Tensor) -> Tensor:
    """Shares [T] float64 that factors predicted, with what the network adds to their logarithms."""
    return segment_softmax(predicted.log() + correction.double(), options)


def distances(shares: Tensor, true: Tensor, options: Tensor) -> Tensor:
    """Jensen-Shannon distance [Q] of predicted `shares` [T] to `true` ones: 1 - alignment.

    Args:
        shares: above 0, summing to 1 per question.
        true: at least 0, summing to 1 per question.
        options: [Q] option counts.
    """
    true = true.double()
    middle = (shares + true) / 2
    # A share of 0 adds nothing, but log 0 has no gradient.
    rows = shares * (shares / middle).log() + true * (true.clamp_min(TINY) / middle).log()
    question = torch.repeat_interleave(torch.arange(len(options)), options).to(shares.device)
    divergence = rows.new_zeros(len(options)).index_add(0, question, rows) / 2
    return (divergence.clamp_min(0) + SOFT).sqrt()
