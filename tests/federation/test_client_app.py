"""What a node takes from its own config."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError, RefusedError, SettingsError, SurveyError
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record
from pluralllm_app.federation.partition import locate
from pluralllm_app.federation.roster import build_roster
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.support.local_grid import LocalGrid


def node(**config: Scalar) -> Context:
    """The context of a node with this config."""
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})


@pytest.mark.parametrize(
    ("gpus", "run", "own", "device"),
    [
        (0, "auto", None, "cpu"),
        (2, "auto", None, "cuda"),
        (2, "cpu", None, "cpu"),
        (2, "auto", "cuda:1", "cuda:1"),
        (2, "cuda", "cpu", "cpu"),
        (0, "cuda", "cpu", "cpu"),
        (2, "cpu", "auto", "cuda"),
    ],
)
def test_the_nodes_own_device_wins(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    run: str,
    own: str | None,
    device: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    config: dict[str, Scalar] = {"device": own} if own else {}
    assert client_app.device_of(node(**config), make_settings({"device": run})) == device


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("cuda:2", "'cuda:2', but torch sees no such GPU here"),
        ("gpu", "the node config's device = 'gpu' is not a device: give auto, cpu, cuda or"),
        ("cuda:-1", "'cuda:-1' is not a device"),
        ("", "'' is not a device"),
        (1, "'1' is not a device"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    own: Scalar,
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match=message):
        client_app.device_of(node(device=own), make_settings())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_node_without_a_gpu_takes_part_in_a_run_on_gpus(config: dict[str, Scalar]) -> None:
    grid = LocalGrid(client_app.app, config | {"device": "cuda"}, nodes=5)
    for context in grid.contexts.values():
        context.node_config["device"] = "cpu"
    built = build_roster(grid, Settings.from_config(config), 0, lambda line: None)
    assert len(built.groups) == 5


def test_a_site_of_another_group_is_refused_by_name(
    tiny_survey: PreparedSurvey, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    group, settings = "Élan 中/..", make_settings()
    site = str(write_site(tiny_survey, group, tmp_path / "site").survey.path)
    for fitting in (node(site=site, node="/"), node(site=site, node="/", group=group)):
        assert locate(fitting, settings).group.name == group
    with pytest.raises(SurveyError, match=r"group 'Alder', its site of group 'Élan 中/\.\.'"):
        locate(node(site=site, node="/", group="Alder"), settings)
    with pytest.raises(FederationError, match="without which the server would know its draws"):
        locate(node(site=site), settings)


def test_a_node_whose_site_was_changed_does_not_take_part(
    config: dict[str, Scalar], tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    site = write_site(tiny_survey, "Alder", tmp_path / "site").survey.path
    (site / "questions.parquet").write_bytes(b"other")
    grid = LocalGrid(client_app.app, config | {"survey": ""}, nodes=5)
    for context in grid.contexts.values():
        context.node_config = {"site": str(site), "node": str(tmp_path)}
    with pytest.raises(FederationError, match=r"100 cannot take part: questions\.parquet is"):
        build_roster(grid, Settings.from_config(config), 0, lambda line: None)


def test_a_group_that_never_trains_does_not_say_which_rows_it_answered(
    config: dict[str, Scalar],
) -> None:
    """Not even in a sum over such groups, which sum their scores alone."""
    config |= {"predictor": "factors", "train-groups-per-round": 0}
    grid = LocalGrid(client_app.app, config | {"privacy": "secure-sum", "scores": "mean"}, nodes=5)
    content = RecordDict({ARRAYS: arrays_to_record({})})
    with pytest.raises(RefusedError, match="its group never trains, and counts nothing"):
        grid.ask(Message(content, 103, "query.secure_counts"))
