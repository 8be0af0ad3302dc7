"""`pluralllm compare`: federated, centralized and baselines on the same contexts, over seeds.

A comparison is a directory: comparison.json says of what, and cells/<method>/seed-<n>/ is a run
directory each. A cell depends on the settings and its seed alone, so that a comparison goes on
where it was left, and more seeds or methods can be added later.

The cells run side by side, each in one process; a federated cell is the whole federation in that
process, message by message, and gives the same weights as `pluralllm run`.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from pluralllm_app import __version__
from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.engines.resources import usable_cpus
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.centralized_runs import run_alone, run_baseline, run_centralized
from pluralllm_app.learning.budgets import BUDGETS, budget_steps
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.records.reader import COMPARISON, read_comparison, read_run
from pluralllm_app.records.schema import (
    ComparedMethod,
    ComparedSurvey,
    ComparisonInfo,
    Identity,
    encode_file,
)
from pluralllm_app.records.writer import close_unfinished, describe_error
from pluralllm_app.settings import NO_RESULT, Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Config = Mapping[str, Scalar]


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
    **{name: Method(kind.title, kind.pools_answers) for name, kind in BASELINES.items()},
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
        run = read_run(self.path)
        return run is not None and run.status == "completed"


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
    """Begin or continue the comparison in `out`; returns the cells asked for, longest first.

    Under seed s + i, with s the settings' own, contexts and held-out questions are drawn from
    evaluation-seed + i, for all methods alike.

    Raises:
        UserError: `out` holds a comparison of other groups, answers, settings or another version
            of the app.
    """
    settings = Settings.from_config(config)
    same = same_budgets(settings, sum(group.role == "train" for group in survey.groups))
    identity = Identity(
        version=__version__,
        survey=_digest(survey),
        settings={key: value for key, value in config.items() if key not in NO_RESULT},
    )
    found = read_comparison(out)
    if found:
        _check_same(out, found.identity, identity)
    first_seed, first_contexts = int(config["seed"]), int(config["evaluation-seed"])
    asked_seeds = range(first_seed, first_seed + seeds)
    asked = {*methods, *(same[name] for name in methods if name in same)}
    known = {*(found.methods if found else ()), *asked}
    info = ComparisonInfo(
        identity=identity,
        survey=ComparedSurvey(
            name=survey.name,
            fingerprint=survey.fingerprint,
            path=str(survey.path),
            groups=len(survey.groups),
        ),
        settings=dict(config),
        seeds=sorted({*(found.seeds if found else ()), *asked_seeds}),
        methods={
            name: ComparedMethod(
                title=method.title, pools_answers=method.pools_answers, same_as=same.get(name)
            )
            for name, method in METHODS.items()
            if name in known
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / COMPARISON, encode_file(info))
    own = [name for name in METHODS if name in asked and name not in same]
    ordered = sorted(own, key=lambda name: name != "centralized-converged")  # by far the longest
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
        for seed in asked_seeds
        for method in ordered
    ]


def _digest(survey: PreparedSurvey) -> str:
    """Hash of questions, embeddings, and every group's name, role and answers."""
    digest = hashlib.sha256(survey.fingerprint.encode())
    for group in survey.groups:
        digest.update(json.dumps([group.name, group.role]).encode())
        digest.update((survey.path / group.file).read_bytes())
    return digest.hexdigest()[:16]


def _check_same(out: Path, found: Identity, identity: Identity) -> None:
    remedy = "give another --out, or remove that directory"
    for what, before, now in (
        ("format", found.schema, identity.schema),
        ("version", found.version, identity.version),
        ("survey", found.survey, identity.survey),
    ):
        if before != now:
            raise UserError(f"{out} compares another {what} ({before}, now {now}): {remedy}")
    settings, settings_now = found.settings, identity.settings
    for key in sorted({*settings, *settings_now}):
        if settings.get(key) != settings_now.get(key):
            raise UserError(
                f"{out} compares {key} = {settings.get(key)}, now {key} = "
                f"{settings_now.get(key)}: {remedy}"
            )


def run_cell(cell: Cell) -> None:
    """Run one cell in this process and write its run directory, anew if it was cut off."""
    # Here, so that this module can be read without Flower.
    from pluralllm_app.engines.in_process import InProcess
    from pluralllm_app.federation.flower_compat import LOGGER

    LOGGER.setLevel(logging.WARNING)
    shutil.rmtree(cell.path, ignore_errors=True)
    settings = Settings.from_config(cell.config)
    survey = PreparedSurvey.open(settings.path("survey"))
    if cell.method == "federated":
        with InProcess(cell.config) as engine:
            engine.wait().check()
    elif cell.method == "local-only":
        run_alone(survey, settings, cell.config)
    elif cell.method in BASELINES:
        run_baseline(cell.method, survey, settings, cell.config)
    else:
        budget = cell.method.removeprefix("centralized-")
        run_centralized(survey, settings, cell.config, budget)


def default_jobs(settings: Settings) -> int:
    """How many cells to run side by side: the CPUs over the threads of each, two to a GPU."""
    jobs = max(1, usable_cpus() // settings.training.client_threads)
    gpus = 0 if settings.training.device == "cpu" else torch.cuda.device_count()
    return min(jobs, 2 * gpus) if gpus else jobs


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other comparisons out of the directory `out` for the block.

    Raises:
        UserError: another one is at work there, it holds something else, or it cannot be written.
    """
    try:
        found = {file.name for file in out.iterdir()} if out.exists() else set()
        if found and not found & {COMPARISON, ".lock"}:
            raise UserError(f"{out} is not empty and holds no comparison: give another --out")
        out.mkdir(parents=True, exist_ok=True)
        lock = held(out / ".lock", f"another comparison is at work in {out}: wait for it")
    except OSError as error:
        raise UserError(
            f"cannot write the comparison {out}: {error.strerror}: give another --out"
        ) from error
    with lock:
        yield


def run_cells(
    cells: Sequence[Cell], jobs: int, watch: Callable[[list[Cell], int], None]
) -> dict[Cell, str]:
    """Run cells in `jobs` processes; returns the errors of those that failed.

    No process is left, whatever happens; what was running then is recorded as stopped.

    Args:
        watch: called twice a second with the cells that are running and the number that is done.
    """
    errors: dict[Cell, str] = {}
    waiting = list(cells)
    workers = [_Worker(number) for number in range(min(jobs, len(cells)))]
    try:
        while waiting or any(worker.cell for worker in workers):
            for worker in workers:
                if worker.cell is None and waiting:
                    worker.begin(waiting.pop(0))
            for worker in workers:
                if worker.cell and (error := worker.ended()) is not None:
                    if error:
                        errors[worker.cell] = error
                    worker.cell = None
            running = [worker.cell for worker in workers if worker.cell]
            watch(running, len(cells) - len(waiting) - len(running))
            wait([worker.connection for worker in workers], timeout=0.5)
    finally:
        for worker in workers:
            worker.kill()
            if worker.cell:
                close_unfinished(worker.cell.path, "stopped", "interrupted")
    return errors


class _Worker:
    """A process that runs one cell after another, and is replaced if it is killed."""

    cell: Cell | None = None

    def __init__(self, number: int) -> None:
        self._number = number
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._number), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, cell: Cell) -> None:
        """Run a cell."""
        self.cell = cell
        self.connection.send(cell)

    def ended(self) -> str | None:
        """None while the cell runs; then "", or why it failed."""
        if not self.connection.poll():
            return None
        try:
            error: str = self.connection.recv()
        except EOFError:
            assert self.cell is not None
            self.kill()  # it has its record locked until it is gone
            close_unfinished(self.cell.path, "failed", "its process was killed")
            self._start()
            return "its process was killed, perhaps out of memory: use fewer --jobs"
        return error

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _work(connection: "Connection[str, Cell]", number: int) -> None:
    """What a worker does: run the cells it is sent, and say why one failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on
    threading.Thread(target=_follow_parent, daemon=True).start()
    if gpus := torch.cuda.device_count():  # CUDA is not in use yet, so the choice still counts
        os.environ["CUDA_VISIBLE_DEVICES"] = choose_gpu(number, gpus)
    while True:
        cell = connection.recv()
        try:
            run_cell(cell)
        except Exception as error:
            connection.send(describe_error(error))
        else:
            connection.send("")


def choose_gpu(number: int, gpus: int) -> str:
    """The GPU of a worker: they take turns at those that this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    return visible.split(",")[number % gpus]


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
