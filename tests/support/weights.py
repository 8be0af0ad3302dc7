"""The weights of saved GPO predictors."""

from pathlib import Path

import torch

from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.saved import load_predictor


def saved_weights(path: Path) -> dict[str, torch.Tensor]:
    """The parameters of the GPO in a directory, by name."""
    predictor = load_predictor(path)
    assert isinstance(predictor, GPOPredictor)
    return predictor.network.state_dict()


def saved_vector(path: Path) -> torch.Tensor:
    """All of them in one vector."""
    return torch.cat([value.flatten() for value in saved_weights(path).values()])
