"""Whole federations of five nodes in this process, and what they leave."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict

from pluralllm_app import client_app
from pluralllm_app.federation.rounds import Rounds, run_federation
from pluralllm_app.settings import Scalar, Settings
from tests.support.local_grid import LocalGrid

Config = dict[str, Scalar]
Finished = Callable[[Mapping[str, Scalar]], Config]


GROUPS = ["Alder", "Birch", "Cedar", "Dogwood", "Élan 中/.."]  # partitions 0 to 4


def run(config: Config, **grid: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a federation of five nodes; returns run.json and the lines of rounds.jsonl."""
    run_federation(
        LocalGrid(client_app.app, config, **{"nodes": 5, **grid}),
        Settings.from_config(config),
        config,
    )
    return read(config)


def read(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """run.json, and the lines of rounds.jsonl."""
    out = Path(str(config["out"] or config["resume-from"]))
    lines = (out / "rounds.jsonl").read_text().splitlines()
    return json.loads((out / "run.json").read_text()), [json.loads(line) for line in lines]


class CutOff(BaseException):
    """What a killed process would be: nothing of ours catches it to go on."""


def resumed(config: Config) -> Config:
    """The config with which a run goes on."""
    return config | {"resume-from": config["out"], "out": ""}


def cut_off(config: Config, exchange: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the process dies in the middle of an exchange, after its clients have trained."""
    real, count = Rounds._ask, 0

    def ask(self: Rounds, *args: Any) -> Any:
        nonlocal count
        count += 1
        replies = list(real(self, *args))
        if count == exchange:
            raise CutOff
        return replies

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "_ask", ask)
        with pytest.raises(CutOff):
            run(config)


def record_of(config: Config) -> list[dict[str, Any]]:
    """The rounds, without what a clock says."""
    _, rounds = read(config)
    for entry in rounds:
        del entry["seconds"]
        if entry["train"]:
            for timed in (entry["train"], *entry["train"]["groups"].values()):
                del timed["seconds"]
    return rounds


def in_round(number: int, partition: int, phase: str = MessageType.TRAIN) -> Callable[..., bool]:
    """Whether a reply is a partition's n-th of its phase."""
    counts = {"train": 0, "evaluate": 0}

    def matches(who: int, reply: Message) -> bool:
        kind = reply.metadata.message_type
        if who != partition or kind != phase:
            return False
        counts[kind] += 1
        return counts[kind] == number

    return matches


def failing(when: Callable[..., bool], reason: str = "out of memory") -> Callable[..., Any]:
    """A client that raises at one time."""

    def reply(partition: int, message: Message) -> Message:
        if when(partition, message):
            raise RuntimeError(reason)
        return message

    return reply


def broken(change: Callable[[RecordDict], None], when: Callable[..., bool]) -> Callable[..., Any]:
    """A reply to a message that is changed at one time."""

    def reply(partition: int, message: Message) -> Message:
        if when(partition, message):
            change(message.content)
        return message

    return reply
