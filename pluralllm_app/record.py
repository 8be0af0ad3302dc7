"""The run directory: what a run was, what happened in each round, and its weights.

run.json         settings, versions, hardware, roster, status `running | completed | failed |
                 stopped` and, where it failed, the error
rounds.jsonl     one line a round, flushed: losses, failures, scores per group and per role
checkpoints/     round-0010/ ...: config.json + model.safetensors (and a model card)
model/, best/    last weights; weights with the best mean alignment of the train groups' held-out
                 questions (never of the evaluation groups)
"""

import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pluralllm_app import __version__
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.evaluation import selection_score
from pluralllm_app.gpo import GPO
from pluralllm_app.settings import Scalar
from pluralllm_app.tracker import Tracker, open_tracker, round_values

SCHEMA_VERSION = 1


class RunRecord:
    """Writes one run directory; run.json and the models are whole at any moment."""

    def __init__(self, path: Path) -> None:
        """Start a new run directory.

        Raises:
            FederationError: it cannot be written, or already holds a run.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir()
        except FileExistsError as error:
            raise FederationError(f"{path} already holds a run: give another out") from error
        except OSError as error:
            raise FederationError(f"cannot write the run directory {path}: {error}") from error
        self._best_score = -math.inf
        self._tracker: Tracker | None = None
        self._run: dict[str, Any] = {"schema": SCHEMA_VERSION, "status": "running", "error": None}

    def update(self, **fields: Any) -> None:
        """Set fields of run.json."""
        self._run |= fields
        write_atomically(self.path / "run.json", json.dumps(self._run, indent=2))

    def track(self, tracker: Tracker) -> None:
        """Send the rounds to `tracker` as well."""
        self._tracker = tracker

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the outcome of the run, which ends it: nothing happens afterwards."""
        self._tell_tracker(lambda tracker: tracker.finish(completed=status == "completed"))
        self.update(status=status, error=error, finished=_now())

    def _tell_tracker(self, tell: Callable[[Tracker], None]) -> None:
        # The record is here; a tracker that fails must not cost the run.
        if self._tracker:
            try:
                tell(self._tracker)
            except Exception as error:
                self._tracker = None
                self.update(tracker_error=describe_error(error))

    def describe(self, survey: Any, groups: Iterable[tuple[str, str, int]]) -> None:
        """Write which survey and groups the run has.

        Args:
            survey: has the attributes name, fingerprint, dim and metric.
            groups: name, role and number of questions of each.
        """
        self.update(
            survey={key: getattr(survey, key) for key in ("name", "fingerprint", "dim", "metric")},
            roster=[
                {"group": name, "role": role, "questions": questions}
                for name, role, questions in groups
            ],
        )

    def append_round(self, entry: Mapping[str, Any]) -> None:
        """Append one round to rounds.jsonl."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._tell_tracker(lambda tracker: tracker.log(entry["round"], round_values(entry)))

    def save_model(self, name: str, model: GPO) -> None:
        """Write `model` as directory `name`, replacing an older one."""
        target = self.path / name
        fresh, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        model.save_pretrained(fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def keep_best(
        self, number: int, summary: Mapping[str, Any], roles: Mapping[str, str], model: GPO
    ) -> None:
        """Save `model` as best/ if it is, by the train groups' mean alignment.

        Args:
            number: the round.
            summary: of `evaluation.summarise_groups`.
            roles: role of every group of the run.
        """
        train = summary["roles"]["train"]
        # A mean over some of the groups does not compare with a mean over all of them.
        if train is None or train["groups"] < list(roles.values()).count("train"):
            return
        if (score := selection_score(train)) > self._best_score:
            self._best_score = score
            self.save_model("best", model)
            self.update(best_round=number, best_score=self._best_score)


@contextmanager
def recorded_run(path: Path, method: str, config: Mapping[str, Scalar]) -> Iterator[RunRecord]:
    """Start the run directory at `path` and write there how the block ends.

    Raises:
        FederationError: see `RunRecord`.
    """
    record = RunRecord(path)
    record.update(
        method=method,
        started=_now(),
        finished=None,
        seed=config["seed"],
        settings=dict(config),
        roster=None,
        **describe_machine(),
    )
    try:
        name = f"{method}-seed{config['seed']}"
        if tracker := open_tracker(str(config["tracker"]), path, name, config):
            record.track(tracker)
        yield record
    except KeyboardInterrupt:
        record.finish("stopped", "interrupted")
        raise
    except BaseException as error:
        record.finish("failed", describe_error(error))
        raise
    record.finish("completed")


def read_run(path: Path) -> dict[str, Any]:
    """What run.json of a run directory says; {} where there is none yet.

    Raises:
        UserError: it is damaged.
    """
    return read_json(path / "run.json")


def read_json(file: Path) -> dict[str, Any]:
    """A file that holds a JSON object; {} where there is none.

    Raises:
        UserError: it holds something else.
    """
    try:
        content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it holds no object")
    return content


def close_unfinished(path: Path, status: str, error: str | None) -> dict[str, Any]:
    """If run.json still says `running`, its run was cut off: set how it ended. Returns run.json."""
    run = read_run(path)
    if run.get("status") == "running":
        run |= {"status": status, "error": error, "finished": _now()}
        write_atomically(path / "run.json", json.dumps(run, indent=2))
    return run


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old or the new text."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def describe_error(error: BaseException) -> str:
    """The message of an error of ours; of any other, its kind as well."""
    return f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def describe_machine() -> dict[str, Any]:
    """Versions of what a run depends on, and the hardware: keys `versions` and `hardware`."""
    return {"versions": _versions(), "hardware": _hardware()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    packages = ("flwr", "ray", "torch", "numpy", "pyarrow")
    own = {"pluralllm_app": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
    }
