"""Training is tested on a network with several layers of each kind."""

import pytest

from pluralllm_app.settings import Scalar


@pytest.fixture
def config(config: dict[str, Scalar]) -> dict[str, Scalar]:
    return config | {"emb-depth": 2, "num-layers": 2}
