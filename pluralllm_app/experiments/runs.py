"""How each method runs: it writes a run directory at `settings.out`.

`config` is always the run config that the settings were read from, for the record.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial

from pluralllm_app.engines.app_files import APP
from pluralllm_app.engines.in_process import InProcess
from pluralllm_app.learning.centralized import Trained, train_alone, train_centralized
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.records.observers import BestModel, Observer
from pluralllm_app.records.recording import no_predictor, recorded_run
from pluralllm_app.records.schema import RoundEntry, TrainEntry
from pluralllm_app.records.writer import RunRecord
from pluralllm_app.scoring.ceiling import sampling_ceiling
from pluralllm_app.scoring.evaluation import GroupEvaluation, evaluation_draws
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.scoring.results import summarise
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import flatten, read_toml
from pluralllm_app.survey.prepared import PreparedSurvey

PRESETS = APP / "conf"


def run_federated(survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Run the whole federation in this process; it gives the weights of `pluralllm run`."""
    with InProcess(dict(config)) as engine:
        engine.wait().check()


def run_preset(
    survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar], preset: str
) -> None:
    """Run a federation with the settings of a file in PRESETS, whatever `config` has of them."""
    with InProcess({**config, **flatten(read_toml(PRESETS / preset))}) as engine:
        engine.wait().check()


def run_centralized(
    survey: PreparedSurvey,
    settings: Settings,
    config: Mapping[str, Scalar],
    budget: str,
    observers: Sequence[Observer] = (),
) -> None:
    """Train on all train groups at once; a round of the record is `local-steps` optimiser steps.

    Args:
        survey: read whole.
        settings: of the run.
        config: of the run.
        budget: one of `budgets.BUDGETS`.
        observers: told of the rounds, besides what keeps the best predictor.
    """
    with recorded_run(settings.path("out"), f"centralized-{budget}", config) as record:
        record.observers += [BestModel(record), *observers]
        record.questionnaire = survey.questionnaire()
        pool = _read_pool(survey, record)
        for done in train_centralized(pool, settings, budget):
            entry = RoundEntry(
                round=done.number,
                train=_train_entry(done.trained) if done.trained else None,
                evaluation=done.evaluation,
                seconds=done.seconds,
            )
            record.close_round(entry, partial(getattr, done, "predictor"))
        record.update(ended_by=done.ended_by)
        record.save_model("model", done.predictor, record.last_round)


def run_alone(survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Train each train group alone; the record has one evaluation."""
    with recorded_run(settings.path("out"), "local-only", config) as record:
        start = time.perf_counter()
        trained, evaluation = train_alone(_read_pool(survey, record), settings)
        entry = RoundEntry(
            round=settings.federation.rounds,
            train=_train_entry(trained),
            evaluation=evaluation,
            seconds=round(time.perf_counter() - start, 3),
        )
        record.close_round(entry, no_predictor)


def run_baseline(
    survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar], name: str
) -> None:
    """Score a baseline on the contexts that every predictor is scored on."""
    with recorded_run(settings.path("out"), name, config) as record:
        start = time.perf_counter()
        pool = _read_pool(survey, record)
        baseline = pool.fit(BASELINES[name], settings.split)
        evaluation = pool.score_all(baseline, settings)
        seconds = round(time.perf_counter() - start, 3)
        entry = RoundEntry(round=0, evaluation=evaluation, seconds=seconds)
        record.close_round(entry, lambda: baseline)


def run_ceiling(survey: PreparedSurvey, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Estimate the score that sampling noise leaves within reach, on the questions scored here.

    Raises:
        ValueError: of some group it is not known how many people were asked.
    """
    with recorded_run(settings.path("out"), "ceiling", config) as record:
        start = time.perf_counter()
        pool = _read_pool(survey, record)
        evaluations = {}
        for name, answers in pool.preferences.items():
            draws = evaluation_draws(answers, pool.roles[name], settings.split, settings.evaluation)
            seed = settings.split.evaluation_seed
            scores = sampling_ceiling(answers, draws, survey.metric, seed)
            evaluations[name] = GroupEvaluation(scores, None)
        evaluation = summarise(evaluations, pool.roles, settings.split)
        seconds = round(time.perf_counter() - start, 3)
        record.close_round(
            RoundEntry(round=0, evaluation=evaluation, seconds=seconds), no_predictor
        )


def _train_entry(trained: Trained) -> TrainEntry:
    return TrainEntry(
        loss=trained.loss, steps=trained.steps, tasks=trained.tasks, seconds=trained.seconds
    )


def _read_pool(survey: PreparedSurvey, record: RunRecord) -> PooledSurvey:
    """Read every group, and write survey and groups into the run's record."""
    pool = PooledSurvey.read(survey)
    groups = sorted(pool.preferences.items())
    record.describe(survey, [(name, pool.roles[name], len(answers)) for name, answers in groups])
    return pool
