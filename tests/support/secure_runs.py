"""Runs with secure sums, and the models they leave."""

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from pluralllm_app.settings import Scalar

Config = dict[str, Scalar]

SECURE: Config = {"privacy": "secure-sum", "train-groups-per-round": 0}
FIVE = (
    "Alder",
    "Birch",
    "Cedar",
    "Fir",
    "Gum",
)  # with an evaluation group: partitions 0, 1, 2, 4, 5


def model(config: Config) -> bytes:
    return Path(str(config["out"] or config["resume-from"]), "model/model.safetensors").read_bytes()


def arrays(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = load_file(Path(str(config["out"]), "model/model.safetensors"))
    return found
