"""`pluralllm compare`: federated, centralized and baselines on the same contexts, over seeds.

A comparison is a directory: comparison.json says of what, and cells/<method>/seed-<n>/ is a run
directory each. A cell depends on the settings and its seed alone, so that a comparison goes on
where it was left, and more seeds or methods can be added later.

The cells run side by side, each in one process; a federated cell is the whole federation in that
process, message by message, and gives the same weights as `pluralllm run`.
"""

import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psutil
import torch

from pluralllm_app.baselines import BASELINES, TrainAnswers
from pluralllm_app.centralized import (
    BUDGETS,
    Pool,
    budget_steps,
    train_alone,
    train_centralized,
)
from pluralllm_app.errors import UserError
from pluralllm_app.evaluation import (
    GroupEvaluation,
    evaluation_draws,
    score_shares,
    summarise_groups,
)
from pluralllm_app.nearest import did_you_mean
from pluralllm_app.preferences import split_questions
from pluralllm_app.record import describe_machine, read_run, recorded_run, write_atomically
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.summary import read_comparison
from pluralllm_app.survey.prepared import PreparedSurvey

Config = Mapping[str, Scalar]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Method:
    """A way to predict the groups' answers."""

    title: str
    pools_answers: bool  # needs the train groups' raw answers in one place


METHODS: dict[str, Method] = {
    "federated": Method("Federated GPO", pools_answers=False),
    "centralized-paper": Method("Centralized GPO, 100 steps", pools_answers=True),
    "centralized-equal-steps": Method("Centralized GPO, equal steps", pools_answers=True),
    "centralized-equal-tasks": Method("Centralized GPO, equal tasks", pools_answers=True),
    "centralized-converged": Method("Centralized GPO, converged", pools_answers=True),
    "local-only": Method("GPO of one group alone", pools_answers=False),
    **{name: Method(own.title, own.pools_answers) for name, own in BASELINES.items()},
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One method under one seed, run into a directory of its own."""

    method: str
    seed: int
    config: dict[str, Scalar]

    @property
    def path(self) -> Path:
        return Path(str(self.config["out"]))

    @property
    def finished(self) -> bool:
        """Whether it has run to its end."""
        return bool(read_run(self.path).get("status") == "completed")


def check_methods(methods: Sequence[str]) -> None:
    """Raise UserError, suggesting the nearest, for a method there is none of."""
    for method in methods:
        if method not in METHODS:
            raise UserError(
                f"method {method!r} is none of those there are: {did_you_mean(method, METHODS)}"
            )


def same_budgets(settings: Settings, train_groups: int) -> dict[str, str]:
    """Centralized methods that have as many steps as an earlier one: {method: the earlier}."""
    first: dict[int, str] = {}
    same: dict[str, str] = {}
    for budget in BUDGETS[:-1]:  # `converged` has a schedule of its own
        name = f"centralized-{budget}"
        earlier = first.setdefault(budget_steps(budget, settings, train_groups), name)
        if earlier != name:
            same[name] = earlier
    return same


def open_comparison(
    out: Path, config: Config, survey: PreparedSurvey, seeds: int, methods: Sequence[str]
) -> list[Cell]:
    """Begin or continue the comparison in `out`; returns all its cells, longest first.

    Raises:
        UserError: `out` holds something else, or a comparison of another survey, other settings or
            another version of the app.
    """
    settings = Settings.from_config(config)
    train_groups = sum(group.role == "train" for group in survey.groups)
    same = same_budgets(settings, train_groups)
    identity = {
        "schema": SCHEMA_VERSION,
        "fingerprint": survey.fingerprint,
        "settings": {key: value for key, value in config.items() if key not in ("out", "survey")},
    }
    found = read_comparison(out)
    if found:
        _check_same(out, found, identity)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no comparison: give another --out")
    first_seed, first_contexts = int(config["seed"]), int(config["evaluation-seed"])
    all_seeds = sorted({*found.get("seeds", []), *range(first_seed, first_seed + seeds)})
    all_methods = [name for name in METHODS if name in {*found.get("methods", {}), *methods}]
    out.mkdir(parents=True, exist_ok=True)
    write_comparison(
        out,
        found
        | identity
        | {
            "survey": {"name": survey.name, "path": str(survey.path), "groups": len(survey.groups)},
            "seeds": all_seeds,
            "methods": {
                name: {
                    "title": METHODS[name].title,
                    "pools_answers": METHODS[name].pools_answers,
                    "same_as": same.get(name),
                }
                for name in all_methods
            },
        }
        | describe_machine(),
    )
    return [
        Cell(
            method,
            seed,
            {
                **config,
                "seed": seed,
                "evaluation-seed": first_contexts + seed - first_seed,
                "out": str(out / "cells" / method / f"seed-{seed}"),
            },
        )
        for method in all_methods
        if method not in same
        for seed in all_seeds
    ]


def write_comparison(out: Path, content: Mapping[str, Any]) -> None:
    """Write comparison.json."""
    write_atomically(out / "comparison.json", json.dumps(content, indent=2))


def _check_same(out: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    remedy = "give another --out, or remove it"
    for key, what in (("schema", "format"), ("fingerprint", "survey")):
        if found.get(key) != identity[key]:
            raise UserError(
                f"{out} compares another {what} ({found.get(key)}, now {identity[key]}): {remedy}"
            )
    before, now = found["settings"], identity["settings"]
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise UserError(
                f"{out} compares {key} = {before.get(key)}, now {key} = {now.get(key)}: {remedy}"
            )


def run_cell(cell: Cell) -> None:
    """Run one cell in this process and write its run directory, anew if it was cut off."""
    # Here, so that this module can be read without Flower.
    from pluralllm_app import client_app
    from pluralllm_app.federation.in_process import InProcessGrid
    from pluralllm_app.federation.rounds import run_federation

    logging.getLogger("flwr").setLevel(logging.WARNING)
    shutil.rmtree(cell.path, ignore_errors=True)
    settings = Settings.from_config(cell.config)
    survey = PreparedSurvey.open(settings.path("survey"))
    if cell.method == "federated":
        grid = InProcessGrid(client_app.app, cell.config, len(survey.groups))
        run_federation(grid, settings, cell.config)
    elif cell.method == "local-only":
        train_alone(survey, settings, cell.config)
    elif cell.method in BASELINES:
        score_baseline(cell.method, survey, settings, cell.config)
    else:
        budget = cell.method.removeprefix("centralized-")
        train_centralized(survey, settings, cell.config, budget)


def score_baseline(name: str, survey: PreparedSurvey, settings: Settings, config: Config) -> None:
    """Score a baseline on the contexts every predictor is scored on; writes a run directory.

    What it pools are the answers a federated run trains on: no held-out or reserved question.
    """
    with recorded_run(settings.path("out"), name, config) as record:
        start = time.perf_counter()
        pool = Pool.of(survey)
        pool.record(survey, record)
        answers = [
            TrainAnswers(group, split_questions(group, "train", settings.split).train)
            for group in (pool.preferences[name] for name in pool.of_role("train"))
        ]
        baseline = BASELINES[name].fit(answers)
        evaluations = {}
        for group, preferences in pool.preferences.items():
            role = pool.roles[group]
            draws = evaluation_draws(preferences, role, settings.split, settings.evaluation)
            predicted = [baseline.predict(preferences, *draw) for draw in draws]
            scores = score_shares(preferences, draws, predicted, survey.metric)
            evaluations[group] = GroupEvaluation(scores, None)
        record.append_round(
            {
                "round": 0,
                "train": None,
                "evaluation": summarise_groups(evaluations, pool.roles, settings.split),
                "failures": [],
                "seconds": round(time.perf_counter() - start, 3),
            }
        )


def default_jobs(settings: Settings) -> int:
    """How many cells to run side by side: the CPUs over the threads of each."""
    return max(1, (os.cpu_count() or 1) // settings.training.client_threads)


def run_cells(
    cells: Sequence[Cell], jobs: int, watch: Callable[[list[Cell], int], None]
) -> dict[Cell, str]:
    """Run cells in `jobs` processes; returns the errors of those that failed.

    Args:
        watch: called twice a second with the cells that are running and the number that is done.
    """
    errors: dict[Cell, str] = {}
    with _processes(jobs) as executor:
        futures = {executor.submit(run_cell, cell): cell for cell in cells}
        while True:
            done = [future for future in futures if future.done()]
            running = [cell for future, cell in futures.items() if _started(future, cell)]
            watch(running, len(done))
            if len(done) == len(futures):
                break
            time.sleep(0.5)
    for future, cell in futures.items():
        if error := future.exception():
            lost = isinstance(error, BrokenProcessPool)
            errors[cell] = "its process was killed: use fewer --jobs" if lost else str(error)
    return errors


def _started(future: Future[None], cell: Cell) -> bool:
    # The executor calls what waits in its queue to a worker running already.
    return not future.done() and cell.path.exists()


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that take turns at the GPUs, and are gone after the block."""
    context = multiprocessing.get_context("spawn")
    numbers: Queue[int] = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    executor = ProcessPoolExecutor(
        jobs, context, initializer=_choose_gpu, initargs=(numbers, torch.cuda.device_count())
    )
    try:
        yield executor
    except BaseException:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _choose_gpu(numbers: "Queue[int]", gpus: int) -> None:
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(numbers.get() % gpus)
