"""Weights, inputs, outputs and gradients of one run of the published model on three groups."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.rows import Batch

REFERENCE = np.load(Path(__file__).with_name("gpo_reference.npz"))
GROUPS = range(3)


@pytest.fixture
def reference_model() -> GPO:
    """The network with the weights of the published model."""
    model = GPO(24, d_model=32, emb_depth=4, dim_feedforward=48, nhead=4, num_layers=3)
    weights = {
        name[2:]: torch.from_numpy(REFERENCE[name]) for name in REFERENCE if name.startswith("w/")
    }
    model.load_state_dict(weights, strict=True)
    return model


def reference_batch(*groups: int) -> Batch:
    """The tasks of some of the GROUPS."""
    lengths = {
        part: [REFERENCE[f"{part}_lengths"][group] for group in groups]
        for part in ("context", "target")
    }
    rows = {part: [int(options.sum()) for options in lengths[part]] for part in lengths}

    def read(name: str, index: int) -> torch.Tensor:
        part = name.partition("_")[0]
        return torch.from_numpy(REFERENCE[name][groups[index], : rows[part][index]])

    x, y, shares = [], [], []
    for index in range(len(groups)):
        target = read("target_y", index)[:, 0]
        x += [read("context_x", index), read("target_x", index)]
        y += [read("context_y", index)[:, 0], torch.zeros_like(target)]
        shares.append(target)
    return Batch(
        x=torch.cat(x),
        y=torch.cat(y),
        context=rows["context"],
        target=rows["target"],
        options=torch.from_numpy(np.concatenate(lengths["target"])),
        shares=torch.cat(shares),
    )
