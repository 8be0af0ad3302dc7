"""Trackers: what rounds.jsonl records, also sent to TensorBoard, Weights & Biases or MLflow.

TensorBoard writes into the run directory, and so does MLflow if it has no server. Weights & Biases
and MLflow take from their own environment variables where they send to: WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI and others.
"""

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from pluralllm_app.core.parts import need
from pluralllm_app.errors import SettingsError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.records.observers import Observer
from pluralllm_app.records.schema import RoundEntry, Status, to_plain
from pluralllm_app.records.tracker_servers import check_server, no_key
from pluralllm_app.records.writer import RunRecord, describe_error
from pluralllm_app.settings import PATHS

PATIENCE_SECONDS = 60.0  # that a tracker may take for one round
QUIET_SECONDS = 5.0  # after which the server is asked whether it is still there
Values = Mapping[str, float]


class Tracker(Protocol):
    """Where the numbers of a run go besides its record."""

    def log(self, round_number: int, values: Values) -> None:
        """Send the numbers of a round."""

    def finish(self, *, completed: bool) -> None:
        """Send the outcome; nothing is logged afterwards."""


class TensorBoard:
    """Event files in `<run directory>/tensorboard`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"))
        table = "".join(f"| {key} | {value} |\n" for key, value in sorted(config.items()))
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{table}")

    def log(self, round_number: int, values: Values) -> None:
        """Send the numbers of a round."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round_number)
        self._writer.flush()

    def finish(self, *, completed: bool) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run in the project `pluralllm` or $WANDB_PROJECT."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "pluralllm"),
                name=name,
                dir=out,
                config=dict(config),
                settings=wandb.Settings(init_timeout=30),
            )
        except wandb.errors.UsageError as error:
            raise SettingsError(f"{no_key()} ({error})") from error

    def log(self, round_number: int, values: Values) -> None:
        """Send the numbers of a round."""
        self._run.log(dict(values), step=round_number)

    def finish(self, *, completed: bool) -> None:
        """Send the outcome.

        Raises:
            SettingsError: its server is no longer there, which wandb would wait for very long.
        """
        # It is begun in any case: wandb would wait for it when the process ends.
        told = _begun(lambda: self._run.finish(exit_code=0 if completed else 1))
        while wait([told], QUIET_SECONDS).not_done:
            directory = shlex.quote(str(Path(self._run.dir).parent))
            check_server("wandb", f"`wandb sync {directory}` sends the run once it does")
        told.result()


class MLflow:
    """A run in the experiment `pluralllm`; without $MLFLOW_TRACKING_URI in `<run>/mlflow`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        # Without it MLflow refuses to write files, which needs no database server.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # By default it tries for many minutes, and the run would wait for it.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        uri = os.environ.get("MLFLOW_TRACKING_URI", (out / "mlflow").as_uri())
        self._client = MlflowClient(tracking_uri=uri)
        try:
            number = self._client.create_experiment("pluralllm")
        except MlflowException:  # it is there already
            experiment = self._client.get_experiment_by_name("pluralllm")
            if experiment is None:
                raise
            number = experiment.experiment_id
        self._run = self._client.create_run(number, run_name=name).info.run_id
        params = [Param(key, str(value)) for key, value in config.items()]
        self._client.log_batch(self._run, params=params)

    def log(self, round_number: int, values: Values) -> None:
        """Send the numbers of a round."""
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        metrics = [
            Metric(re.sub(r"[^\w\-. :/]", "_", name), value, now, round_number)
            for name, value in values.items()
        ]
        for first in range(0, len(metrics), _MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics[first : first + _MLFLOW_BATCH])

    def finish(self, *, completed: bool) -> None:
        """Send the outcome."""
        self._client.set_terminated(self._run, "FINISHED" if completed else "FAILED")


_MLFLOW_BATCH = 1000  # metrics that its server takes at once
_KINDS: dict[str, type[TensorBoard | WeightsAndBiases | MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check_tracker(name: str) -> None:
    """Raise MissingPartError if the tracker's package is not installed."""
    if name != "none":
        need(name, f"tracker = {name!r}")


def check_tracking(name: str) -> None:
    """Raise MissingPartError as `check_tracker`, SettingsError if its server cannot be used."""
    check_tracker(name)
    check_server(name)


def open_tracker(kind: str, out: Path, name: str, config: Mapping[str, Any]) -> Tracker | None:
    """Start to track a run; returns None for the kind `none`.

    Args:
        kind: the setting `tracker`.
        out: the run directory.
        name: what the tracker calls the run.
        config: the settings; paths among them are not sent, since they may name people.
    """
    check_tracking(kind)
    settings = {key: value for key, value in config.items() if key not in PATHS}
    return None if kind == "none" else _KINDS[kind](out, name, settings)


class Tracking(Observer):
    """Sends what is recorded to a tracker. If one call fails or takes long, it is told no more."""

    def __init__(self, record: RunRecord, tracker: Tracker) -> None:
        self._record = record
        self._tracker: Tracker | None = tracker

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """Send the numbers of a round."""
        self._tell(lambda tracker: tracker.log(entry.round, round_values(entry)))

    def finished(self, status: Status) -> None:
        """Send the outcome."""
        self._tell(lambda tracker: tracker.finish(completed=status == "completed"))

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        if self._tracker:
            # It may wait for its server for ever, and the run must not.
            told = _begun(partial(tell, self._tracker))
            try:
                told.result(PATIENCE_SECONDS)
            except Exception as error:
                late = f"it did not answer within {PATIENCE_SECONDS:g} s"
                self._tracker = None
                self._record.update(tracker_error=describe_error(error) if told.done() else late)


def _begun(call: Callable[[], None]) -> Future[None]:
    """Begin a call in a thread that does not keep the process from ending."""
    told: Future[None] = Future()

    def run() -> None:
        try:
            call()
            told.set_result(None)
        except Exception as error:
            told.set_exception(error)

    Thread(target=run, daemon=True).start()
    return told


def round_values(entry: RoundEntry) -> dict[str, float]:
    """The numbers of a round under names like `evaluation groups/mean`."""
    values: dict[str, float] = {"seconds": entry.seconds, "failures": len(entry.failures)}
    if entry.train and entry.train.loss is not None:
        values["train/loss"] = entry.train.loss
    if entry.evaluation:
        for role, summary in entry.evaluation.roles.items():
            for key, value in to_plain(summary or {}).items():
                if isinstance(value, float):
                    values[f"{role} groups/{key}"] = value
        for name, group in entry.evaluation.groups.items():
            # A slash or a name of dots would make a path for some trackers.
            values[f"alignment/of {name.replace('/', '_')}"] = group.alignment
    return values
