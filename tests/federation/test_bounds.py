"""Every number of a node is bounded: the table in code, in the docs, and what happens."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.bounds import BOUNDS, MOST_TEXT, check, table
from pluralllm_app.federation.messages import EVALUATION, METRICS, Evaluation
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from tests.conftest import ROOT
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config, read

Change = Callable[[Message], None]


def hostile(config: Config, change: Change) -> tuple[dict, list[dict]]:
    """A run in which Birch's replies are changed; returns its record."""

    def reply(partition: int, message: Message) -> Message:
        if partition == 1:
            change(message)
        return message

    grid = LocalGrid(client_app.app, config, nodes=5, reply=reply)
    run_federation(grid, Settings.from_config(config), config)
    return read(config)


def test_the_docs_show_the_table() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert "\n".join(table()) in page


def test_the_table_names_each_field_once() -> None:
    assert len({(each.message, each.field) for each in BOUNDS}) == len(BOUNDS)


@pytest.mark.parametrize("bound", [each for each in BOUNDS if each.most is not None])
def test_what_is_beyond_a_bound_is_refused(bound: object) -> None:
    message, field, least, most = (
        getattr(bound, name) for name in ("message", "field", "least", "most")
    )
    check(message, field, least)
    check(message, field, most)
    for value in (math.nextafter(most, math.inf), math.nextafter(least, -math.inf), math.nan):
        with pytest.raises(ValueError, match=f"its {field} is (above|below)"):
            check(message, field, value)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("loss", 1e13, "its loss is above 1e+12"),
        ("loss", -1e300, "its loss is below -1e+12"),
        ("js-divergence", 1e300, "its js-divergence is above 1"),
        ("js-divergence", -0.5, "its js-divergence is below 0"),
        ("num-examples", 2**50, "claims 1125899906842624 train questions"),
        ("seconds", -1.0, "negative"),
    ],
)
def test_an_update_beyond_its_bounds_is_refused(
    config: Config, field: str, value: float, reason: str
) -> None:
    def change(message: Message) -> None:
        if METRICS in message.content:
            message.content.metric_records[METRICS][field] = value

    _, rounds = hostile(config | {"rounds": 1}, change)
    failures = [each for entry in rounds for each in entry["failures"]]
    assert [each["group"] for each in failures] == ["Birch"]
    assert reason in failures[0]["reason"]
    assert "Birch" not in rounds[-1]["train"]["groups"]


def test_no_loss_owns_a_strategy_that_weighs_by_losses(config: Config) -> None:
    config |= {"rounds": 1, "strategy": "qfedavg", "qfedavg.q": 1.0}

    def change(message: Message) -> None:
        if METRICS in message.content:
            message.content.metric_records[METRICS]["js-divergence"] = 1e30

    _, rounds = hostile(config, change)
    assert set(rounds[-1]["train"]["groups"]) == {"Alder", "Cedar"}


def test_seconds_are_recorded_up_to_the_timeout(config: Config) -> None:
    def change(message: Message) -> None:
        for record in (METRICS, EVALUATION):
            if record in message.content:
                message.content.metric_records[record]["seconds"] = 1e300

    _, rounds = hostile(config | {"rounds": 1, "round-timeout": 50.0}, change)
    assert rounds[-1]["train"]["groups"]["Birch"]["seconds"] == 50.0
    assert all(math.isfinite(entry["seconds"]) for entry in rounds)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("survey_questions", 2**50, "'Birch' has survey_questions"),
        ("questions", 2**50, "'Birch' claims 1125899906842624 questions"),
        ("pool", 2**50, "1125899906842624 of them to train on"),
        ("dim", 2**50, "'Birch' has dim"),
        ("name", "x" * (MOST_TEXT + 1), "its name is longer than 1000 characters"),
    ],
)
def test_a_description_beyond_its_bounds_is_refused(
    config: Config, field: str, value: Scalar, reason: str
) -> None:
    def change(message: Message) -> None:
        if "description" in message.content:
            message.content.config_records["description"][field] = value

    with pytest.raises(FederationError, match=reason):
        hostile(config, change)


def test_all_nodes_together_cannot_claim_a_survey_without_end(config: Config) -> None:
    def reply(_: int, message: Message) -> Message:
        if "description" in message.content:
            said = message.content.config_records["description"]
            said["survey_questions"] = said["questions"] = said["pool"] = 2**50
        return message

    grid = LocalGrid(client_app.app, config, nodes=5, reply=reply)
    with pytest.raises(FederationError, match="its survey_questions is above 1e"):
        run_federation(grid, Settings.from_config(config), config)
    fewer = config | {"out": str(Path(str(config["out"])).with_name("fewer"))}

    def slightly(_: int, message: Message) -> Message:
        if "description" in message.content:
            message.content.config_records["description"]["survey_questions"] = 1000
        return message

    grid = LocalGrid(client_app.app, fewer, nodes=5, reply=slightly)
    with pytest.raises(FederationError, match="claim a survey of 1000 questions, the server's"):
        run_federation(grid, Settings.from_config(fewer), fewer)


@pytest.mark.parametrize("value", [1e13, -1e13])
def test_scores_beyond_their_bounds_are_refused(value: float) -> None:
    record = MetricRecord({"seconds": 0.1, "loss": value, "questions": [1], "scores": [0.5]})
    with pytest.raises(ValueError, match="its loss is"):
        Evaluation.from_content(RecordDict({EVALUATION: record}), range(1, 5), 5)


@pytest.mark.parametrize("coverage", [[0.5], [0.5, 1.5], [-0.1, 0.5], 0.5])
def test_coverage_is_of_shares(coverage: list[float]) -> None:
    record = MetricRecord({"seconds": 0.1, "questions": [1], "scores": [0.5]})
    record["coverage"] = coverage
    with pytest.raises(ValueError, match="its coverage is not 2 numbers between 0 and 1"):
        Evaluation.from_content(RecordDict({EVALUATION: record}), range(1, 5), 5)
