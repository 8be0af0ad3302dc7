"""A round whose quorum is lost to nodes that went away waits for them, and is done again."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation import lost_nodes
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.writer import RunRecord
from pluralllm_app.settings import Settings
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config, Finished, in_round, read, record_of

BIRCH = 1
ALL = {"min-train-groups": 3, "grace-period": 60.0}
Fault = Callable[[int, Message], Message | None]


def lost(message: Message) -> Message:
    """What the SuperLink says where the node was lost that a message went to."""
    return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)


class Leaving(LocalGrid):
    """Birch's node goes away with some of its replies, and is away for some looks afterwards."""

    def __init__(self, config: Config, when: Callable[..., bool], looks: int) -> None:
        super().__init__(client_app.app, config, 5, self.reply)
        self.when, self.looks, self.left = when, looks, 0
        self.asked: list[set[str]] = []  # messages of each try

    def reply(self, partition: int, message: Message) -> Message:
        if not self.when(partition, message):
            return message
        self.left = self.looks
        return lost(self.sent[-1])

    def get_node_ids(self) -> Iterable[int]:
        away, self.left = self.left > 0, self.left - 1
        return [node for node in super().get_node_ids() if not (away and node == 100 + BIRCH)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.asked.append(set())
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ids = list(message_ids)
        self.asked[-1] |= {*ids}
        return super().pull_messages(ids)


def run(config: Config, grid: LocalGrid) -> list[str]:
    """Run it; returns the lines of its log."""
    lines: list[str] = []
    run_federation(grid, Settings.from_config(config), config, lines.append)
    return lines


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_nodes, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="fedavg"),
        pytest.param({"client-optimizer-state": "keep"}, id="keep", marks=pytest.mark.slow),
        pytest.param({"strategy": "fedyogi"}, id="fedyogi", marks=pytest.mark.slow),
        pytest.param({"predictor": "factors"}, id="factors"),
        pytest.param({"strategy": "fedmedian"}, id="fedmedian", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_the_result_is_that_of_a_run_in_which_nothing_happened(
    finished: Finished, tmp_path: Path, settings: Config, number: int
) -> None:
    whole = finished({**ALL, **settings})
    config = whole | {"out": str(tmp_path / "run")}
    grid = Leaving(config, in_round(number, BIRCH), looks=3)
    lines = run(config, grid)
    assert [line.partition(" until")[0] for line in lines if "waiting" in line] == [
        f"round {number}: waiting"
    ]
    assert f"round {number}: back are Birch" in lines
    for model in ("model", "best"):
        ours, theirs = (
            (Path(str(own["out"])) / model / "model.safetensors").read_bytes()
            for own in (config, whole)
        )
        assert ours == theirs, model
    assert record_of(config) == record_of(whole)
    assert "waiting" not in read(config)[0]
    # No reply to a message of the first try was taken in the second.
    for one, other in zip(grid.asked, grid.asked[1:], strict=False):
        assert not one & other


def test_the_record_says_for_whom_it_waits(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    update = RunRecord.update

    def note(self: RunRecord, **changes: Any) -> None:
        said.append(changes.get("waiting", "nothing"))
        update(self, **changes)

    monkeypatch.setattr(RunRecord, "update", note)
    config |= ALL
    run(config, Leaving(config, in_round(2, BIRCH), looks=3))
    [waiting] = [each for each in said if each not in ("nothing", None)]
    assert (waiting.round, waiting.groups) == (2, ["Birch"])
    assert said[said.index(waiting) + 1] is None


def test_a_node_that_does_not_come_back_ends_the_run(config: Config) -> None:
    config |= ALL | {"grace-period": 0.2}
    grid = Leaving(config, in_round(2, BIRCH), looks=10**6)
    with pytest.raises(FederationError, match="round 2: good updates: 2, fewer than min-train-gro"):
        run(config, grid)
    record, rounds = read(config)
    assert record["status"] == "failed"
    assert "waiting" not in record
    assert [failure["group"] for failure in rounds[-1]["failures"]] == ["Birch"]


def test_a_node_that_goes_away_each_time_ends_the_run(config: Config) -> None:
    config |= ALL
    grid = Leaving(config, lambda who, _: who == BIRCH and len(grid.asked) > 1, looks=2)
    with pytest.raises(FederationError, match="Birch: Node Unavailable"):
        run(config, grid)
    # The query, the first try, its repeats.
    assert len(grid.asked) == 2 + lost_nodes.REPEATS


def test_without_a_grace_period_it_does_not_wait(config: Config) -> None:
    config |= ALL | {"grace-period": 0.0}
    grid = Leaving(config, in_round(2, BIRCH), looks=2)
    with pytest.raises(FederationError, match="fewer than min-train-groups"):
        run(config, grid)
    assert len(grid.asked) == 3  # the query, and two rounds


def test_it_does_not_wait_for_a_node_that_stays_silent(config: Config) -> None:
    config |= ALL
    when = in_round(2, BIRCH)
    grid = LocalGrid(client_app.app, config, 5, lambda who, it: None if when(who, it) else it)
    with pytest.raises(FederationError, match=r"Birch: no reply within 0\.3 s"):
        run(config, grid)


def test_it_does_not_wait_where_the_quorum_is_there(config: Config) -> None:
    config |= {"grace-period": 60.0, "min-train-groups": 2}
    lines = run(config, Leaving(config, in_round(2, BIRCH), looks=2))
    assert not any("waiting" in line for line in lines)
    assert [one["group"] for one in read(config)[1][1]["failures"]] == ["Birch"]
