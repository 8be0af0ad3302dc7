"""The common way of doing it, which the benchmarks compare with.

The published architecture as a masked nn.TransformerEncoder over context and target rows alike, a
softmax per question in a Python loop, one forward pass per evaluated question, torch's own Adam,
and an average of state dicts layer by layer. `tests/test_benchmarks.py` shows that it computes what
the published model computes.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.preferences import PreferenceSet


class CommonGPO(nn.Module):
    """The predictor with a mask: every row is a query and a key, targets are masked out as keys."""

    def __init__(self, ours: GPO) -> None:
        super().__init__()
        ours = deepcopy(ours)
        self.embedder, self.predictor = ours.embedder, ours.predictor
        first = ours.encoder["layers"][0]
        width = first.linear1.in_features
        layer = nn.TransformerEncoderLayer(
            width, first.nhead, first.linear1.out_features, dropout=0.0, batch_first=True
        )
        layers = len(ours.encoder["layers"])
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.load_state_dict(ours.state_dict())

    def forward(self, task: Batch) -> tuple[Tensor, Tensor]:
        """Predicted shares [T] and their std [T], of a batch of one task."""
        x, y, (count,) = task.x, task.y, task.context
        mask = torch.zeros(len(x), len(x), dtype=torch.bool, device=x.device)
        mask[:, count:] = True
        rows = self.encoder(self.embedder(torch.cat([x, y[:, None]], dim=-1))[None], mask=mask)[0]
        mean, log_std = self.predictor(rows[count:]).unbind(dim=-1)
        shares, start = torch.zeros_like(mean), 0
        for options in task.options.tolist():
            shares[start : start + options] = mean[start : start + options].softmax(dim=0)
            start += options
        return shares, log_std.exp()

    def densities(self, task: Batch) -> Tensor:
        """Log density [T] of the true shares."""
        return torch.distributions.Normal(*self(task)).log_prob(task.shares)


@torch.no_grad()
def evaluate(model: CommonGPO, preferences: PreferenceSet, context: np.ndarray) -> np.ndarray:
    """Alignment of each question outside the context, one forward pass each, [Q - C]."""
    scores = []
    device = next(model.parameters()).device
    for question in np.setdiff1d(np.arange(len(preferences)), context):
        task = preferences.task(context, np.array([question]))
        shares, _ = model(Batch.gather([task], device))
        divergence = js_divergence(shares.cpu().numpy(), task.target.shares, task.target.options)
        scores.append(1 - float(np.sqrt(divergence[0])))
    return np.array(scores)


def average(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of state dicts, layer by layer."""
    total = deepcopy(states[0])
    for name in total:
        total[name] = sum(
            weight / sum(weights) * state[name]
            for state, weight in zip(states, weights, strict=True)
        )
    return total
