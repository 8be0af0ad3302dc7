"""Who takes part: nodes that come late, are lost, stay silent, or do not fit."""

import re
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import chain, repeat

import pytest
import torch
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation import messages
from pluralllm_app.federation import roster as nodes
from pluralllm_app.federation.roster import Roster, build_roster
from pluralllm_app.settings import Scalar, Settings
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
ALL = [100, 101, 102, 103, 104]
PATIENT = {"start-timeout": 5.0}


@pytest.fixture(autouse=True)
def _looks_are_frequent(_no_more_nodes_come: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More nodes may come here: three looks decide, as always, and take no time."""
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "SETTLE_SECONDS", 0.03)


class Looks(LocalGrid):
    """A grid at which so many nodes are connected at each look, and the last ones for ever."""

    looks: Iterator[list[int]]

    def get_node_ids(self) -> Iterable[int]:
        return next(self.looks)


def roster(
    config: Config,
    looks: Iterable[list[int]] = (),
    expected: int = 0,
    reply: Callable[[int, Message], Message | None] = lambda _, message: message,
) -> tuple[Roster, list[int]]:
    """Build the roster; returns it with the ids of the nodes that were asked, in that order."""
    grid = Looks(client_app.app, config, nodes=5, reply=reply)
    looks = list(looks) or [ALL]
    grid.looks = chain(looks, repeat(looks[-1]))
    settings = Settings.from_config(config)
    built = build_roster(grid, settings, expected, lambda line: None)
    return built, [message.metadata.dst_node_id for message in grid.sent]


def test_a_simulation_waits_for_all_its_partitions(config: Config) -> None:
    # The quorum of 2 is there for longer than the nodes take to settle.
    built, asked = roster(config | PATIENT, [ALL[:2]] * 12 + [ALL[:4]] + [ALL])
    assert len(built.groups) == 5
    assert asked == ALL  # each once


def test_a_partition_that_never_comes_is_missed(config: Config) -> None:
    with pytest.raises(FederationError, match="4 of 5 nodes connected within start-timeout"):
        roster(config, [ALL[:4]])


def unavailable(times: int) -> Callable[[int, Message], Message]:
    """Node 101 is lost as often before it replies; it still counts as connected."""
    left = times

    def reply(partition: int, message: Message) -> Message:
        nonlocal left
        if partition == 1 and left:
            left -= 1
            error = Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable")
            return Message(error, reply_to=message)
        return message

    return reply


def test_a_lost_node_is_asked_again(config: Config) -> None:
    built, asked = roster(config | PATIENT, expected=5, reply=unavailable(2))
    assert built.nodes["Birch"] == 101
    assert asked == [*ALL, 101, 101]


def test_a_node_that_stays_lost_is_named(config: Config) -> None:
    with pytest.raises(FederationError, match=r"node 101 was lost before.*deploy status"):
        roster(config, expected=5, reply=unavailable(10**9))


def test_a_lost_node_is_not_needed_for_the_quorum(config: Config) -> None:
    lost = unavailable(10**9)

    def elsewhere(partition: int, message: Message) -> Message:
        message = lost(partition, message)
        if not message.has_error():
            message.content.config_records["description"]["nodes"] = 0  # as in a deployment
        return message

    built, _ = roster(config | PATIENT, [ALL] * 8 + [[100, 102, 103, 104]], reply=elsewhere)
    assert "Birch" not in built.groups
    assert len(built.groups) == 4


def test_one_node_alone_cannot_raise_how_many_are_waited_for(config: Config) -> None:
    def boast(partition: int, message: Message) -> Message:
        description = message.content.config_records["description"]
        description["nodes"] = 10**6 if partition == 1 else 0
        return message

    built, _ = roster(config, expected=5, reply=boast)
    assert len(built.groups) == 5


def test_an_error_of_the_app_is_told_at_once(config: Config) -> None:
    def reply(partition: int, message: Message) -> Message:
        if partition == 1:
            raise RuntimeError("no such survey")
        return message

    with pytest.raises(
        FederationError, match=r"node 101 cannot take part: no such survey .*deploy status"
    ):
        roster(config | {"start-timeout": 10**6}, expected=5, reply=reply)


def test_a_silent_node_is_named(config: Config) -> None:
    with pytest.raises(
        FederationError, match=r"node 101 did not say .*no reply within 0\.3 s.*deploy status"
    ):
        roster(config, reply=lambda partition, message: None if partition == 1 else message)


def test_another_torch_on_a_node_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, torch_version = metadata.version("pluralllm-app"), torch.__version__.partition("+")[0]
    assert messages.installed() == f"{app}, torch {torch_version}"
    monkeypatch.setattr(client_app, "installed", lambda: f"{app}, torch 2.0.1")
    refusal = f"'Alder' has version '{app}, torch 2.0.1', the server '{app}"
    with pytest.raises(FederationError, match=re.escape(refusal)):
        roster(config)


def test_an_app_that_is_only_sent_has_the_version_that_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "pluralllm-app":
            raise messages.metadata.PackageNotFoundError
        return "2.13.0+cu130"

    monkeypatch.setattr(messages.metadata, "version", version)
    assert messages.installed.__wrapped__() == f"{messages.__version__}, torch 2.13.0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_told_before_training(config: Config) -> None:
    with pytest.raises(FederationError, match="sees no such GPU here: set device = 'auto'"):
        roster(config | {"device": "cuda"})
