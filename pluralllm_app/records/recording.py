"""A run while it goes on: its directory is written, and its observers are told."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pluralllm_app.errors import FederationError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.records.lock import locked_run
from pluralllm_app.records.observers import Observer
from pluralllm_app.records.resume import check_resumable, check_same
from pluralllm_app.records.schema import RoundEntry, RunInfo, Status
from pluralllm_app.records.trackers import Tracking, open_tracker
from pluralllm_app.records.writer import (
    RUNNING,
    STATE,
    RunRecord,
    describe_error,
    describe_groups,
    describe_survey,
    new_run,
    now,
)
from pluralllm_app.settings import Scalar


class Recording(RunRecord):
    """Writes a run directory, and tells its observers what happens."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        super().__init__(path, info)
        self.observers: list[Observer] = []

    def check_described(self, survey: Any, groups: Iterable[tuple[str, str, int]]) -> None:
        """Check that survey and groups are still those of `describe`, with the same arguments.

        Raises:
            FederationError: naming what differs.
        """
        check_same(self.path, self.info, describe_survey(survey), describe_groups(groups))

    def trained(self, round_number: int, predictor: Callable[[], ContextPredictor]) -> None:
        """Tell the observers that a round has given a new predictor."""
        for observer in self.observers:
            observer.trained(round_number, predictor)

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """Tell the observers that a round was recorded; `predictor` is the one that was scored."""
        for observer in self.observers:
            observer.recorded(entry, predictor)

    def close_round(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """Record a round, then tell the observers."""
        self.append_round(entry)
        self.recorded(entry, predictor)

    def finish(self, status: Status, error: str | None = None) -> None:
        """Tell the observers, then write the outcome, which ends the run."""
        try:
            for observer in self.observers:
                observer.finished(status)
        finally:
            super().finish(status, error)


def no_predictor() -> ContextPredictor:
    """For rounds that no single predictor belongs to."""
    raise NotImplementedError("no single predictor was scored in this round")


@contextmanager
def recorded_run(
    path: Path, method: str, config: Mapping[str, Scalar], *, resume: bool = False
) -> Iterator[Recording]:
    """Begin the run directory at `path`, or go on with it, and write there how the block ends.

    Raises:
        UserError: the directory cannot be written, is in use, or already holds a run; to resume,
            see `check_resumable`.
    """
    with locked_run(path):
        if resume:
            record = Recording(path, check_resumable(path, config))
            record.update(**RUNNING, resumed=[*record.info.resumed, now()])
        else:
            record = Recording(path, new_run(path, method, config))
            record.update()
        try:
            name = f"{method}-seed{config['seed']}"
            if tracker := open_tracker(str(config["tracker"]), path, name, config):
                record.observers.append(Tracking(record, tracker))
            yield record
        except KeyboardInterrupt:
            record.finish("stopped", "interrupted")
            raise
        except BaseException as error:
            with suppress(FederationError):  # on a full disk; then the first error says it
                record.finish("failed", describe_error(error))
            raise
        # In this order: a run that is cut off here is completed, or can go on.
        record.finish("completed")
        (path / STATE).unlink(missing_ok=True)
