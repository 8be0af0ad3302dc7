"""Runs the cells of a comparison side by side, each in one process.

A federated cell is the whole federation in its process, message by message, and gives the same
weights as `pluralllm run`.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

import torch

from pluralllm_app.engines.resources import usable_cpus
from pluralllm_app.experiments.comparison import Cell
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.records.writer import close_unfinished, describe_error
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey


def run_cell(cell: Cell) -> None:
    """Run one cell in this process and write its run directory, anew if it was cut off."""
    from pluralllm_app.federation.flower_compat import LOGGER  # it takes Flower to import

    LOGGER.setLevel(logging.WARNING)
    shutil.rmtree(cell.path, ignore_errors=True)
    settings = Settings.from_config(cell.config)
    survey = PreparedSurvey.open(settings.path("survey"))
    METHODS[cell.method].run(survey, settings, cell.config)


def default_jobs(settings: Settings) -> int:
    """How many cells to run side by side: the CPUs over the threads of each, two to a GPU."""
    jobs = max(1, usable_cpus() // settings.training.client_threads)
    gpus = 0 if settings.training.device == "cpu" else torch.cuda.device_count()
    return min(jobs, 2 * gpus) if gpus else jobs


def run_cells(
    cells: Sequence[Cell], jobs: int, watch: Callable[[list[Cell], int], None]
) -> dict[Cell, str]:
    """Run cells in `jobs` processes; returns the errors of those that failed.

    No process is left, whatever happens; what was running then is recorded as stopped.

    Args:
        cells: in the order in which they begin.
        jobs: how many processes.
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
    for stop in (signal.SIGINT, signal.SIGHUP):  # of the terminal: for the parent to act on
        signal.signal(stop, signal.SIG_IGN)
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
