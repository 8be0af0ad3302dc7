"""Federations of comparisons are in this process: their nodes are all there at once."""

from collections.abc import Iterator

import pytest

from pluralllm_app.federation import roster


@pytest.fixture(scope="module", autouse=True)
def _no_more_nodes_come() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roster, "SETTLE_SECONDS", 0.0)
        yield
