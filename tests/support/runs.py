"""Run directories and comparisons written by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pluralllm_app.records.reader import ROUNDS, RUN
from pluralllm_app.records.schema import (
    ComparedSurvey,
    ComparisonInfo,
    Hardware,
    Identity,
    RecordedSurvey,
    RosterEntry,
    RoundEntry,
    RunInfo,
    TrainEntry,
    encode_file,
    encode_line,
)
from pluralllm_app.scoring.results import EvaluationResult, GroupResult, Role, RoleSummary
from tests.conftest import TRAIN

SURVEY = RecordedSurvey(name="by hand", fingerprint="f0", dim=6, metric="jensen-shannon")
ROSTER = [
    *(RosterEntry(group=name, role="train", questions=9) for name in TRAIN),
    RosterEntry(group="Dogwood", role="evaluation", questions=9),
]


def make_summary(mean: float, **fields: Any) -> RoleSummary:
    """A summary of one group, or of others that are like it; their scores are all the same."""
    alike = RoleSummary(
        groups=1,
        mean=mean,
        pooled=mean,
        worst=mean,
        worst_group="Dogwood",
        gap=0.0,
        cov=0.0,
        fi=1.0,
        fi_per_question=None,
    )
    return RoleSummary(**(vars(alike) | fields))


def make_evaluation(score: float | None, train_score: float | None = None) -> EvaluationResult:
    """One evaluation group, Dogwood, and the train groups, as far as they have a score."""
    scores: dict[str, tuple[Role, float | None]] = {"Dogwood": ("evaluation", score)}
    scores |= {name: ("train", train_score) for name in TRAIN}
    return EvaluationResult(
        roles={
            "train": None if train_score is None else make_summary(train_score, groups=len(TRAIN)),
            "evaluation": None if score is None else make_summary(score),
        },
        groups={
            name: GroupResult(role=role, alignment=value, loss=None, questions=9)
            for name, (role, value) in scores.items()
            if value is not None
        },
    )


def make_entry(
    number: int,
    score: float | None = None,
    loss: float | None = None,
    train_score: float | None = None,
) -> RoundEntry:
    """A round of 6 steps and 48 tasks, which took 2 s, where there is a loss."""
    evaluated = score is not None or train_score is not None
    return RoundEntry(
        round=number,
        train=None if loss is None else TrainEntry(loss=loss, steps=6, tasks=48, seconds=2.0),
        evaluation=make_evaluation(score, train_score) if evaluated else None,
        seconds=9.0,
    )


def make_info(**fields: Any) -> RunInfo:
    """A completed federated run of Alder, Birch, Cedar and Dogwood."""
    settings = {"seed": 0, "rounds": 1, "evaluation-seed": 0, "strategy": "fedavg", "survey": ""}
    given: dict[str, Any] = {
        "method": "federated",
        "status": "completed",
        "started": "2026-01-01T00:00:00+00:00",
        "seed": 0,
        "settings": settings,
        "survey": SURVEY,
        "roster": ROSTER,
        "versions": {"python": "3.11"},
        "hardware": Hardware(platform="Linux", processor="by hand", cpus=2, gpus=[]),
    }
    return RunInfo(**(given | fields))


def write_run(path: Path, rounds: Sequence[RoundEntry] | None = None, **fields: Any) -> Path:
    """Write a run directory; without `rounds`, of one that trains and scores all groups."""
    if rounds is None:
        rounds = [make_entry(1, 0.8, 0.5, train_score=0.8)]
    path.mkdir(parents=True, exist_ok=True)
    (path / RUN).write_bytes(encode_file(make_info(**fields)))
    (path / ROUNDS).write_text("".join(map(encode_line, rounds)))
    return path


def make_comparison(seeds: Sequence[int], reserved: float = 0.0) -> ComparisonInfo:
    """A comparison of no method yet."""
    return ComparisonInfo(
        identity=Identity(version="0", survey="f0", settings={}),
        survey=ComparedSurvey(name="by hand", fingerprint="f0", path="", groups=4),
        settings={"reserved-fraction": reserved},
        seeds=seeds,
        methods={},
    )
