"""Run directories of training without a federation, and of baselines."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pluralllm_app.learning.centralized import train_alone, train_centralized
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.preferences import split_questions
from pluralllm_app.records.schema import to_plain
from pluralllm_app.records.writer import RunRecord, recorded_run
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Entry = dict[str, Any]


def run_centralized(
    survey: PreparedSurvey,
    settings: Settings,
    config: Mapping[str, Scalar],
    budget: str,
    progress: Callable[[Entry], None] = lambda entry: None,
) -> None:
    """Train on all train groups at once; writes a run directory at `settings.out`.

    A round of the record is `local-steps` optimiser steps.

    Args:
        survey: read whole.
        settings: of the run.
        config: the run config the settings were read from, for the record.
        budget: one of `budgets.BUDGETS`.
        progress: called with each line of rounds.jsonl.
    """
    with recorded_run(settings.path("out"), f"centralized-{budget}", config) as record:
        pool = _read_pool(survey, record)
        for done in train_centralized(pool, settings, budget):
            entry: Entry = {
                "round": done.number,
                "train": asdict(done.trained) if done.trained else None,
                "evaluation": to_plain(done.evaluation),
                "failures": [],
                "seconds": done.seconds,
            }
            if done.evaluation:
                record.keep_best(done.number, done.evaluation, pool.roles, done.predictor)
            record.append_round(entry)
            progress(entry)
        record.update(ended_by=done.ended_by)
        record.save_model("model", done.predictor)


def run_alone(survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Train each train group alone; writes a run directory with one evaluation."""
    with recorded_run(settings.path("out"), "local-only", config) as record:
        start = time.perf_counter()
        trained, evaluation = train_alone(_read_pool(survey, record), settings)
        record.append_round(
            {
                "round": settings.federation.rounds,
                "train": asdict(trained),
                "evaluation": to_plain(evaluation),
                "failures": [],
                "seconds": round(time.perf_counter() - start, 3),
            }
        )


def run_baseline(
    name: str, survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]
) -> None:
    """Score a baseline on the contexts every predictor is scored on; writes a run directory.

    What it pools are the answers a federated run trains on: no held-out or reserved question.
    """
    with recorded_run(settings.path("out"), name, config) as record:
        start = time.perf_counter()
        pool = _read_pool(survey, record)
        train = [pool.preferences[group] for group in pool.of_role("train")]
        baseline = BASELINES[name].fit(
            [group.select(split_questions(group, "train", settings.split).train) for group in train]
        )
        record.append_round(
            {
                "round": 0,
                "train": None,
                "evaluation": to_plain(pool.score_all(baseline, settings)),
                "failures": [],
                "seconds": round(time.perf_counter() - start, 3),
            }
        )


def _read_pool(survey: PreparedSurvey, record: RunRecord) -> PooledSurvey:
    """Read every group, and write survey and groups into the run's record."""
    pool = PooledSurvey.read(survey)
    groups = sorted(pool.preferences.items())
    record.describe(survey, [(name, pool.roles[name], len(answers)) for name, answers in groups])
    return pool
