"""What a strategy or an update hook does to a round, and what it cannot do to its record."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralllm_app.errors import FederationError
from pluralllm_app.federation import hooks, strategies
from pluralllm_app.federation.hooks import UpdateHook
from pluralllm_app.federation.strategies import STRATEGIES, register
from pluralllm_app.federation.strategies.averages import FedAvg
from pluralllm_app.learning.base import ArrayForm, Contribution, Contributions, Form, Request
from pluralllm_app.learning.gpo import WEIGHTS
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.records.observers import BestModel
from pluralllm_app.settings import Scalar
from tests.support.local_runs import Finished, failing, in_round, read, run
from tests.support.weights import saved_weights

Config = dict[str, Scalar]


@dataclass(frozen=True)
class FirstTwo(FedAvg):
    """Looks at the first two contributions only, as a strategy may."""

    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        return super().aggregate(round_number, current, carried, islice(contributions, 2))


@dataclass(frozen=True)
class Broken(FedAvg):
    """Fails before it looks at anything."""

    def aggregate(self, *arguments: Any) -> tuple[Arrays, Arrays]:
        raise ZeroDivisionError("nothing to divide by")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "STRATEGIES", dict(STRATEGIES))
    register("firsttwo", FirstTwo)
    register("broken", Broken)


def test_a_strategy_that_stops_early_leaves_the_whole_record(config: Config) -> None:
    record, rounds = run(config | {"strategy": "firsttwo", "rounds": 3})
    assert record["status"] == "completed"
    assert [entry["round"] for entry in rounds] == [0, 1, 2, 3]
    assert rounds[0]["train"] is None
    for entry in rounds[1:]:
        assert set(entry["train"]["groups"]) == {"Alder", "Birch", "Cedar"}
        assert entry["evaluation"]["roles"]["train"]["groups"] == 3


class PassedOn(UpdateHook):
    """A generator of its own, which closes what it goes through when it is closed."""

    def at_server(
        self, sent: Arrays, contributions: Iterator[Contribution]
    ) -> Iterator[Contribution]:
        yield from contributions


class Eager(UpdateHook):
    """Fails before anything is looked at."""

    def at_server(
        self, sent: Arrays, contributions: Iterator[Contribution]
    ) -> Iterator[Contribution]:
        raise ZeroDivisionError("nothing to divide by")


def test_a_hook_that_is_closed_early_leaves_the_whole_record(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "HOOKS", [PassedOn()])
    _, rounds = run(config | {"strategy": "firsttwo", "rounds": 3})
    assert [entry["round"] for entry in rounds] == [0, 1, 2, 3]
    for entry in rounds[1:]:
        assert set(entry["train"]["groups"]) == {"Alder", "Birch", "Cedar"}


def test_a_hook_that_fails_leaves_the_round_before_on_record(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "HOOKS", [Eager()])
    with pytest.raises(ZeroDivisionError):
        run(config)
    _, rounds = read(config)
    assert rounds[0]["evaluation"]["roles"]["train"]["groups"] == 3


def test_an_observer_that_fails_leaves_each_round_once(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BestModel, "recorded", full)
    with pytest.raises(OSError, match="No space"):
        run(config)
    record, rounds = read(config)
    assert [entry["round"] for entry in rounds] == [0, 1]
    assert rounds[0]["evaluation"]
    assert record["status"] == "failed"


def test_a_strategy_that_stops_early_does_not_hide_a_lost_quorum(config: Config) -> None:
    reply = failing(in_round(2, 2))  # Cedar, whom the strategy does not look at
    with pytest.raises(FederationError, match=r"round 2: good updates: 2.*Cedar: out of memory"):
        run(config | {"strategy": "firsttwo", "min-train-groups": 3}, reply=reply)


def test_a_strategy_that_fails_leaves_the_round_before_on_record(config: Config) -> None:
    with pytest.raises(ZeroDivisionError):
        run(config | {"strategy": "broken"})
    lines = (Path(str(config["out"])) / "rounds.jsonl").read_text().splitlines()
    assert '"round": 0' in lines[0]
    assert '"evaluation": {"roles"' in lines[0]


class Clip(UpdateHook):
    """Bounds the norm of what a group changed."""

    def __init__(self, norm: float) -> None:
        self.norm = norm
        self.rounds: list[int] = []

    def at_group(
        self, group: str, sent: Arrays, contribution: Contribution, request: Request
    ) -> Contribution:
        self.rounds.append(request.round)
        change = contribution.arrays[WEIGHTS] - sent[WEIGHTS]
        factor = min(1.0, self.norm / float(np.linalg.norm(change)))
        clipped = sent[WEIGHTS] + np.float32(factor) * change
        return replace(contribution, arrays={WEIGHTS: clipped})


class Sum(UpdateHook):
    """Sends whole numbers, of which the server makes the strategy see the mean alone."""

    scale = 2.0**30

    def at_group(
        self, group: str, sent: Arrays, contribution: Contribution, request: Request
    ) -> Contribution:
        weighted = contribution.weight * contribution.arrays[WEIGHTS].astype(np.float64)
        return replace(
            contribution, arrays={WEIGHTS: np.round(weighted * self.scale).astype(np.int64)}
        )

    def form(self, form: Form) -> Form:
        shape = form.arrays[WEIGHTS].shape
        return replace(form, arrays={WEIGHTS: ArrayForm(np.dtype(np.int64), shape)})

    def at_server(
        self, sent: Arrays, contributions: Iterator[Contribution]
    ) -> Iterator[Contribution]:
        gathered = list(contributions)
        total = np.sum([each.arrays[WEIGHTS] for each in gathered], axis=0)
        weight = sum(each.weight for each in gathered)
        yield Contribution({WEIGHTS: total / self.scale / weight}, weight, {})


@pytest.mark.slow
def test_hooks_change_what_is_sent_and_what_the_strategy_sees(
    config: Config, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").symlink_to(str(finished({})["out"]))
    clip = Clip(norm=1e-3)
    monkeypatch.setattr(hooks, "HOOKS", [clip])
    run(config | {"out": str(tmp_path / "clipped")})
    monkeypatch.setattr(hooks, "HOOKS", [clip, Sum()])
    _, rounds = run(config | {"out": str(tmp_path / "summed")})
    assert [failure for entry in rounds for failure in entry["failures"]] == []
    assert clip.rounds == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3
    start, plain, clipped, summed = (
        np.concatenate([value.numpy().ravel() for value in saved_weights(tmp_path / name).values()])
        for name in ("plain/checkpoints/round-0001", "plain/model", "clipped/model", "summed/model")
    )
    assert np.linalg.norm(plain - clipped) > 1e-2 * np.linalg.norm(plain - start)
    # A sum of whole numbers of 2^-30 gives the clipped average, to about that.
    assert np.abs(clipped - summed).max() < 2**-22
