"""What ends a run before its first round: nodes, groups, sites and directories that do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.conftest import make_survey
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import GROUPS, Config, Finished, read, run
from tests.support.weights import saved_weights


def test_too_few_nodes_in_time(config: Config) -> None:
    with pytest.raises(FederationError, match=r"5 of 6 nodes connected within start-timeout"):
        run(config | {"expected-nodes": 6})
    assert read_status(config) == "failed"


def read_status(config: Config) -> str:
    status = json.loads((Path(str(config["out"])) / "run.json").read_text())["status"]
    return str(status)


def test_fewer_supernodes_than_groups(config: Config) -> None:
    with pytest.raises(
        FederationError, match=r"survey has 5 groups but the federation has 2 SuperNodes: pass"
    ):
        run(config, nodes=2)


def test_a_group_too_small_for_the_settings(config: Config) -> None:
    with pytest.raises(FederationError, match=r"group 'Cedar' has 18 train questions of 20.*lower"):
        run(config | {"evaluation-context": 19})


def test_a_damaged_partition_is_found_before_training(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "damaged")
    file = survey.path / survey.group("Birch").file
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FederationError, match=r"[Bb]irch"):
        run(config | {"survey": str(survey.path)})


def describe_with(**changes: Any) -> Callable[[int, Message], Message]:
    """Node 1 describes itself with other values."""

    def reply(partition: int, message: Message) -> Message:
        if partition == 1 and message.metadata.message_type == "query":
            for key, value in changes.items():
                message.content.config_records["description"][key] = value
        return message

    return reply


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "other"}, "group 'Birch' has fingerprint 'other'"),
        ({"survey_questions": 2**40}, "group 'Birch' has survey_questions 1099511627776"),
        ({"dim": 7}, "group 'Birch' has dim 7"),
        ({"metric": "wasserstein"}, "group 'Birch' has metric 'wasserstein'"),
        ({"version": "9.9"}, "group 'Birch' has version '9.9', the server '"),
        ({"role": "judge"}, "group 'Birch' has unknown role 'judge'"),
        ({"pool": 10**9}, "group 'Birch' claims 30 questions, 1000000000 of them to train on"),
        ({"questions": 31}, "group 'Birch' claims 31 questions"),
        ({"group": "Alder"}, "2 nodes hold group 'Alder'"),
        ({"questions": "many"}, "no valid 'questions'"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_by_name(
    config: Config, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FederationError) as caught:
        run(config, reply=describe_with(**changes))
    assert message in str(caught.value)


def run_at_sites(
    config: Config,
    survey: PreparedSurvey,
    sites: Path,
    damage: Callable[[Path], object] = lambda site: None,
) -> None:
    """Run on a site for each group, with the run's draws; the first one is damaged before."""
    (sites / "policy.toml").write_text('draws = "run-seed"\n')
    bare = config | {"survey": ""}
    grid = LocalGrid(client_app.app, bare, nodes=5)
    for number, (context, group) in enumerate(zip(grid.contexts.values(), GROUPS, strict=True)):
        site = write_site(survey, group, sites / f"site-{number}")
        context.node_config = {"site": str(site.survey.path), "node": str(sites)}
    damage(sites / "site-0")
    run_federation(grid, Settings.from_config(bare), bare)


@pytest.mark.slow
def test_a_site_is_named_by_the_nodes_own_config(
    config: Config, finished: Finished, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    run_at_sites(config, tiny_survey, tmp_path)
    record, _ = read(config)
    assert record["status"] == "completed"
    simulated = saved_weights(Path(str(finished({})["out"])) / "model")
    final = saved_weights(Path(str(config["out"])) / "model")
    assert all(torch.equal(final[name], simulated[name]) for name in final)


def test_a_site_that_was_tampered_with_is_refused(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    def swap_answers(site: Path) -> None:
        shutil.copy(tmp_path / "site-1/groups/birch.parquet", site / "groups/alder.parquet")

    with pytest.raises(FederationError) as caught:
        run_at_sites(config, tiny_survey, tmp_path, swap_answers)
    message = str(caught.value)
    assert "node 100 cannot take part: groups/alder.parquet is not as it was written" in message
    assert str(tmp_path) not in message
    record = json.loads((Path(str(config["out"])) / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", message)


def test_embeddings_that_were_changed_are_refused(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "changed")
    file = survey.path / "embeddings.safetensors"
    content = bytearray(file.read_bytes())
    content[-2:] = np.float16("nan").tobytes()
    file.write_bytes(content)
    with pytest.raises(FederationError, match=r"not as it was prepared"):
        run(config | {"survey": str(survey.path)})


def test_an_old_run_is_not_overwritten(config: Config) -> None:
    run(config)
    with pytest.raises(FederationError, match="already holds a run"):
        run(config)


def test_an_unwritable_run_directory(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FederationError, match="cannot write the run directory"):
        run(config | {"out": str(tmp_path / "file" / "run")})
