"""Groups that are lost at any time while a server that sees sums alone makes them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation import secure_server
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.federation.secure_group import CONTENT, SECURE_SUM
from pluralllm_app.secure_sum.messages import Advertisement, Invitation, write
from pluralllm_app.secure_sum.messages import read as read_message
from pluralllm_app.secure_sum.signing import Identity
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import tiny_config
from tests.federation.test_lost_nodes import Leaving
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config, Finished, in_round, read, resumed, run
from tests.support.secure_runs import SECURE, arrays, model


def silent(config: Config) -> None:
    """A run in which a group does not answer in a round."""
    hit = in_round(2, 1)
    run(config, nodes=6, reply=lambda who, it: None if hit(who, it) else it)


def test_a_run_goes_on_without_a_group_that_is_lost_in_a_round(
    of_five: Config, tmp_path: Path
) -> None:
    """Its masks are taken off; the result is that of a run in which it is lost in the same way."""
    secure = of_five | {"rounds": 3}
    silent(secure)
    _, rounds = read(secure)
    sums = [entry["train"]["secure_sum"] for entry in rounds[1:]]
    assert [each["groups"] for each in sums] == [5, 4, 5]
    assert [each["exchanges"] for each in sums][1:] == [2, 1]  # agreeing, and opening
    assert [failure["group"] for failure in rounds[2]["failures"]] == ["Birch"]
    plain = secure | {"privacy": "none", "out": str(tmp_path / "plain")}
    silent(plain)
    for name, array in arrays(plain).items():
        np.testing.assert_allclose(arrays(secure)[name], array, atol=1e-7, err_msg=name)


NESTED = b"\x81\xa4junk" + b"\x91" * 200_000 + b"\x90"  # of msgpack: {"junk": [[[...]]]}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("odd", [NESTED, b"\xc1"])
def test_a_group_that_sends_nonsense_is_lost_alone(of_five: Config, step: int, odd: bytes) -> None:
    asked = 0

    def reply(partition: int, message: Message) -> Message:
        nonlocal asked
        if partition == 1 and message.metadata.message_type == "query.secure_sum":
            asked += 1
            if asked == step:
                message.content[SECURE_SUM] = ConfigRecord({CONTENT: odd})
        return message

    info, rounds = run(of_five, nodes=6, reply=reply)
    assert info["status"] == "completed"
    assert [failure["group"] for failure in rounds[1]["failures"]] == ["Birch"]
    assert rounds[1]["train"]["secure_sum"]["groups"] == 4


@pytest.mark.slow
def test_a_group_that_advertises_odd_keys_is_lost_alone(
    of_five: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would refuse all keys, and be the ones that are lost."""
    invitations: list[Invitation] = []

    def invite(*fields: Any) -> Invitation:
        invitations.append(Invitation(*fields))
        return invitations[-1]

    def reply(partition: int, message: Message) -> Message:
        if partition != 1 or message.metadata.message_type != "query.secure_sum":
            return message
        try:
            own = read_message(Advertisement, cast(bytes, message.content[SECURE_SUM][CONTENT]))
        except ValueError:  # another step
            return message
        who = Identity.simulated(own.group)
        own = replace(own, masks=(own.encryption,) * len(own.masks), identity=who.public)
        own = replace(own, signature=who.sign(*own.signed(invitations[-1].context)))
        message.content[SECURE_SUM] = ConfigRecord({CONTENT: write(own)})
        return message

    monkeypatch.setattr(secure_server, "Invitation", invite)
    info, rounds = run(of_five, nodes=6, reply=reply)
    assert info["status"] == "completed"
    assert [failure["group"] for failure in rounds[1]["failures"]] == ["Birch"]
    assert "advertises a key twice" in rounds[1]["failures"][0]["reason"]


@pytest.mark.slow
def test_sums_of_factors_are_over_the_same_groups_in_all_rounds(
    of_five: Config, five: PreparedSurvey, tmp_path: Path
) -> None:
    """Else what the lost group alone contributes would be told, but for the change of a round."""
    factors = {"predictor": "factors", "rounds": 3}
    with pytest.raises(FederationError, match="Birch cannot be missing"):
        silent(of_five | factors)
    again = resumed(of_five | factors)
    run(again, nodes=6)
    whole = tiny_config(five, tmp_path / "whole") | SECURE | factors
    run(whole, nodes=6)
    assert model(again) == model(whole)


@pytest.mark.slow
def test_a_group_lost_from_the_counts_has_no_part_in_sums_of_factors(of_five: Config) -> None:
    """Not even where it is back before the first of them."""
    lost = [True]

    def reply(who: int, message: Message) -> Message | None:
        counted = "query.secure_counts" in message.metadata.message_type
        return None if who == 1 and counted and lost.pop() else message

    run(of_five | {"predictor": "factors", "rounds": 2}, nodes=6, reply=reply)
    _, rounds = read(of_five)
    sums = [entry["train"]["secure_sum"] for entry in rounds[1:]]
    assert [(each["groups"], each["cohort"]) for each in sums] == [(4, 4), (4, 4)]


def steps(grid: LocalGrid) -> list[str]:
    """The steps of the protocol in the order of the messages."""
    return [
        str(message.content[SECURE_SUM]["step"])  # type: ignore[index]
        for message in grid.sent
        if SECURE_SUM in message.content
    ]


def failing(step: str, partition: int, times: int = 1) -> Callable[..., Any]:
    """Replies of which those of a partition to a step are lost, so many times."""
    left = [times]

    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        asked = grid.sent[-1].content
        of_sums = who == partition and SECURE_SUM in asked
        if of_sums and left[0] and asked[SECURE_SUM]["step"] == step:  # type: ignore[index]
            left[0] -= 1
            return None
        return message

    return reply


def run_failing(config: Config, reply: Callable[..., Any]) -> tuple[LocalGrid, list[str]]:
    lines: list[str] = []
    grid = LocalGrid(client_app.app, config, 6, lambda who, it: reply(who, it, grid))
    run_federation(grid, Settings.from_config(config), config, lines.append)
    return grid, lines


@pytest.mark.slow
def test_a_group_lost_while_keys_are_made_is_back_in_the_next_setup(
    of_five: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure_server, "WITHOUT_ONE", 1)
    grid, _ = run_failing(of_five, failing("advertise", 1))
    _, rounds = read(of_five)
    assert [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]] == [4, 5]
    assert steps(grid)[:13] == ["advertise"] * 5 + ["advertise"] * 4 + ["deal"] * 4
    assert {failure["group"] for failure in rounds[1]["failures"]} == {"Birch"}


@pytest.mark.slow
def test_a_group_lost_while_shares_are_dealt_is_left_out_of_the_setup(of_five: Config) -> None:
    grid, _ = run_failing(of_five, failing("deal", 4))
    assert steps(grid)[:18] == ["advertise"] * 5 + ["deal"] * 5 + ["advertise"] * 4 + ["deal"] * 4
    _, rounds = read(of_five)
    assert [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]] == [4, 4]


@pytest.mark.slow
def test_a_group_lost_while_a_sum_is_opened_is_in_the_sum(
    of_five: Config, five: PreparedSurvey, tmp_path: Path
) -> None:
    _, lines = run_failing(of_five, failing("open", 2))
    assert "opening a sum: Cedar failed: no reply within 0.3 s" in lines
    whole = tiny_config(five, tmp_path / "whole") | SECURE
    run(whole, nodes=6)
    assert model(of_five) == model(whole)


def test_too_few_groups_end_the_run(of_five: Config) -> None:
    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        train = message.metadata.message_type == "train"
        return None if train and who in (0, 1) else message

    with pytest.raises(
        FederationError, match=r"good updates: 3, fewer than the threshold of secure sums = 4"
    ):
        run_failing(of_five, reply)


@pytest.mark.slow
def test_a_sum_that_too_few_open_ends_the_run_and_it_can_go_on(of_five: Config) -> None:
    lost = [failing("open", partition) for partition in (0, 1)]

    def reply(who: int, message: Message, grid: LocalGrid) -> Message | None:
        return message if all(each(who, message, grid) for each in lost) else None

    with pytest.raises(FederationError, match=r"opened a sum: 3 of 5 groups.*Alder: no reply"):
        run_failing(of_five, reply)
    run_failing(resumed(of_five), lambda who, message, grid: message)
    record, _ = read(resumed(of_five))
    assert record["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"strategy": "fedavg"}, {"predictor": "factors"}], ids=str)
def test_a_round_waits_for_a_node_without_whom_a_sum_stays_closed(
    config: Config, finished: Finished, kind: Config
) -> None:
    whole = finished({**SECURE, **kind})
    config |= SECURE | kind | {"grace-period": 60.0}
    lines: list[str] = []
    grid = Leaving(config, in_round(2, 1), looks=3)
    run_federation(grid, Settings.from_config(config), config, lines.append)
    assert "round 2: back are Birch" in lines
    assert model(config) == model(whole)
