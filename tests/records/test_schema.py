"""The files of runs and comparisons: what is written is read back, and nothing else is accepted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.records.schema import (
    Failure,
    Hardware,
    RecordedSurvey,
    RosterEntry,
    RoundEntry,
    RunInfo,
    TrainEntry,
    decode,
    encode_file,
    encode_line,
    from_plain,
    to_plain,
)
from pluralllm_app.scoring.results import EvaluationResult, GroupResult, RoleSummary
from pluralllm_app.settings import ADDED_LATER

SUMMARY = RoleSummary(
    groups=2,
    mean=0.75,
    pooled=0.7,
    worst=0.5,
    worst_group="Alder",
    gap=0.5,
    cov=0.25,
    fi=0.9,
    fi_per_question=None,
)
UPDATE = {"loss": -1.0, "js_divergence": 0.1, "questions": 9, "seconds": 0.5}
ENTRY = RoundEntry(
    round=3,
    train=TrainEntry(loss=-1.0, steps=6, tasks=12, groups={"Alder": UPDATE}, seconds=1.0),
    evaluation=EvaluationResult(
        roles={"train": SUMMARY, "evaluation": None},
        groups={"Alder": GroupResult(role="train", alignment=0.5, loss=None, questions=3)},
    ),
    failures=[Failure(group="Birch", phase="train", reason="refused: no")],
    seconds=1.5,
)
RUN = RunInfo(
    method="federated",
    started="2026-01-01T00:00:00+00:00",
    seed=0,
    settings={
        "rounds": 3,
        "learning-rate": 1.0,
        "strategy": "fedavg",
        "precision": "float32",
        "predictor": "gpo",
        "questionnaire": "",
        "prior": "none",
        "weight-cap": 1.0,
        "grace-period": 0.0,
        "privacy": "none",
        "purpose": "train",
        "secure-threshold": 0,
        "min-contributors": 3,
        "noise": "none",
        "epsilon": 0.0,
        "delta": 1e-6,
        "scores": "per-group",
        "update-norm": 0.0,
    },
    versions={"python": "3.11"},
    hardware=Hardware(platform="Linux", processor="x", cpus=2, gpus=[]),
)
FILE = Path("run", "run.json")


def test_a_round_is_read_back_as_it_was_written() -> None:
    assert decode(RoundEntry, encode_line(ENTRY).encode(), FILE, 1) == ENTRY
    assert from_plain(RoundEntry, to_plain(ENTRY)) == ENTRY


def test_a_run_is_read_back_as_it_was_written() -> None:
    run = replace(
        RUN,
        survey=RecordedSurvey(name="demo", fingerprint="f0", dim=6, metric="wasserstein"),
        roster=[RosterEntry(group="Alder", role="train", questions=9)],
        best_round=0,
        resumed=["2026-01-02T00:00:00+00:00"],
    )
    assert decode(RunInfo, encode_file(run), FILE) == run


def test_what_only_some_have_is_left_out() -> None:
    plain = to_plain(RUN)
    assert plain["survey"] is plain["error"] is None
    assert not {"best_round", "best_score", "resumed", "tracker_error"} & set(plain)
    assert to_plain(replace(RUN, best_round=0))["best_round"] == 0
    assert "mean_seen" not in to_plain(SUMMARY)
    reserved = to_plain(replace(SUMMARY, mean_seen=0.5))
    assert (reserved["mean_seen"], reserved["mean_reserved"]) == (0.5, None)
    centralized = TrainEntry(loss=0.0, steps=6, tasks=12, seconds=1.0)
    assert "groups" not in to_plain(centralized)


def test_settings_that_came_later_are_filled_in() -> None:
    plain = to_plain(replace(RUN, settings={"rounds": 3}))
    assert from_plain(RunInfo, plain).settings == {**ADDED_LATER, "rounds": 3}


def test_a_number_that_is_not_finite_is_not_recorded() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_line(replace(ENTRY, seconds=float("nan")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("round", None, r"rounds\.jsonl is damaged in line 7: .*missing required field `round`"),
        ("train", {"loss": "low"}, r"in line 7: Expected `float . null`, got `str` - at `"),
        ("evaluation", {"roles": {}}, r"missing required field `groups` - at `\$\.evaluation`"),
        ("seconds", "1", r"restore it from a copy, or do without run"),
    ],
)
def test_damage_is_named_with_its_place_and_a_remedy(key: str, value: object, message: str) -> None:
    plain = to_plain(ENTRY) | {key: value}
    if value is None:
        del plain[key]
    with pytest.raises(UserError, match=message):
        decode(RoundEntry, json.dumps(plain).encode(), Path("run", "rounds.jsonl"), 7)


def test_half_a_character_is_damage() -> None:
    text = encode_line(ENTRY).replace("refused: no", r"\ud83d no")
    with pytest.raises(UserError, match="damaged"):
        decode(RoundEntry, text.encode(), FILE)


def test_a_later_format_is_refused() -> None:
    with pytest.raises(UserError, match="has the format 2, this version of the app reads 1"):
        decode(RunInfo, encode_file(replace(RUN, schema=2)), FILE)
