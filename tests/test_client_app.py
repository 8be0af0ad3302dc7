"""What a node holds, by its own config: site, group and device."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError, SettingsError, UserError
from pluralllm_app.federation.in_process import InProcessGrid
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site

GROUP = "Élan 中/.."
Locate = Callable[..., client_app.Place]


@pytest.fixture
def site(tiny_survey: PreparedSurvey, tmp_path: Path) -> Path:
    return write_site(tiny_survey, GROUP, tmp_path / "site").survey.path


@pytest.fixture
def locate(site: Path, make_settings: Callable[..., Settings]) -> Locate:
    """What a node with this site holds, by what else its config and the run's settings say."""

    def located(node: Mapping[str, Scalar], run: Mapping[str, Scalar] | None = None) -> object:
        context = Context(1, 1, {"site": str(site), **node}, RecordDict(), {})
        return client_app.locate(context, make_settings(dict(run or {})))

    return located  # type: ignore[return-value]


def test_a_site_of_another_group_is_refused(locate: Locate) -> None:
    assert locate({}).group.name == GROUP
    for same in (GROUP, "E\u0301lan 中/.. "):
        assert locate({"group": same}).group.name == GROUP
    with pytest.raises(
        FederationError, match=r"node of group 'Birch' has the site of 'Élan 中/\.\."
    ):
        locate({"group": "Birch"})


def test_a_node_chooses_its_device(locate: Locate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate({"device": "cpu"}, {"device": "cuda"}).device == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cpu", "cuda", "cuda:1"):
        assert locate({"device": device}).device == device
    assert locate({}).device == "cuda"
    assert locate({}, {"device": "cpu"}).device == "cpu"


@pytest.mark.parametrize("device", ["cuda:1", "gpu", "", "cuda:-1", 1])
def test_a_device_that_is_not_there_is_refused(
    locate: Locate, monkeypatch: pytest.MonkeyPatch, device: Scalar
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=f"device of group '.*' = '{device}' is not one of"):
        locate({"device": device})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match="= 'cuda' is not one of those there are: known"):
        locate({}, {"device": "cuda"})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"group": "Birch"}, "the node of group 'Birch' has the site of"),
        ({"device": "cuda:7"}, "device of group 'Élan 中/..' = 'cuda:7' is not one of"),
        ({"tampered": True}, "embeddings.safetensors is not as it was written"),
    ],
)
def test_the_run_does_not_start_with_such_a_node(
    config: dict[str, Scalar], site: Path, node: dict[str, Scalar], message: str
) -> None:
    if node.pop("tampered", False):
        file = site / "embeddings.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    config |= {"survey": ""}
    grid = InProcessGrid(client_app.app, config, nodes=2)
    for context in grid.contexts.values():
        context.node_config = {"site": str(site), **node}
    with pytest.raises(UserError, match=r"node \d+ cannot take part") as caught:
        run_federation(grid, Settings.from_config(config), config)
    assert message in str(caught.value)
