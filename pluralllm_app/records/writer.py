"""The run directory: what a run was, what happened in each round, and its weights.

run.json         settings, versions, hardware, roster, status `running | completed | failed |
                 stopped` and, where it failed, the error
rounds.jsonl     one line a round, flushed: losses, failures, scores per group and per role
checkpoints/     round-0010/ ...: config.json + model.safetensors (and a model card)
resume.safetensors   while a federated run is not completed: what it needs to go on
model/, best/    last weights; weights with the best mean alignment of the train groups' held-out
                 questions (never of the evaluation groups)
"""

import json
import math
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pluralllm_app import __version__
from pluralllm_app.core.atomic import held, read_json, sync, write_atomically
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.predictors.base import Predictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.records.schema import SCHEMA_VERSION, RoundEntry, to_plain
from pluralllm_app.records.trackers import Tracker, open_tracker, round_values
from pluralllm_app.scoring.results import EvaluationResult
from pluralllm_app.settings import ADDED_LATER, NO_RESULT, Scalar

STATE = "resume.safetensors"
_RUNNING: dict[str, Any] = {"status": "running", "error": None, "finished": None}


class RunRecord:
    """Writes one run directory; run.json and the models are whole at any moment."""

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        self.path = path
        self.best_score = -math.inf
        self._run = fields
        self._tracker: Tracker | None = None

    def update(self, **fields: Any) -> None:
        """Set fields of run.json."""
        self._run |= fields
        with self._writing("run.json"):
            write_atomically(self.path / "run.json", json.dumps(self._run, indent=2).encode())

    def track(self, tracker: Tracker) -> None:
        """Send the rounds to `tracker` as well."""
        self._tracker = tracker

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the outcome of the run, which ends it: no more is recorded afterwards."""
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

    @property
    def roster(self) -> list[dict[str, Any]]:
        """The groups of the run, see `describe`; empty before that."""
        return self._run["roster"] or []

    def describe(self, survey: Any, groups: Iterable[tuple[str, str, int]]) -> None:
        """Write which survey and groups the run has.

        Args:
            survey: has the attributes name, fingerprint, dim and metric.
            groups: name, role and number of questions of each.
        """
        self.update(survey=_describe_survey(survey), roster=_describe_groups(groups))

    def check_described(self, survey: Any, groups: Iterable[tuple[str, str, int]]) -> None:
        """Check that survey and groups are still those of `describe`.

        Raises:
            FederationError: naming what differs.
        """
        before, now = self._run["survey"], _describe_survey(survey)
        for key in before:
            if before[key] != now[key]:
                raise FederationError(
                    f"the run in {self.path} is of a survey with {key} {before[key]}, the nodes "
                    f"have {now[key]}: give them the survey it began with"
                )
        then, there = (
            {entry["group"]: entry for entry in roster}
            for roster in (self.roster, _describe_groups(groups))
        )
        for name in sorted({*then, *there}):
            if then.get(name) != there.get(name):
                was, is_now = (_show_group(roster.get(name)) for roster in (then, there))
                raise FederationError(
                    f"in the run in {self.path} group {name!r} was {was}, now it is {is_now}: a "
                    "run goes on with the groups it began with"
                )

    def append_round(self, entry: RoundEntry | Mapping[str, Any]) -> None:
        """Append one round to rounds.jsonl."""
        line = to_plain(entry)
        name = "rounds.jsonl"
        with self._writing(name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._tell_tracker(lambda tracker: tracker.log(line["round"], round_values(line)))

    def save_model(self, name: str, predictor: Predictor) -> None:
        """Write a predictor as directory `name`, replacing an older one of the same sizes."""
        target = self.path / name
        fresh = target.with_name(f".{target.name}.new")
        with self._writing(name):
            shutil.rmtree(fresh, ignore_errors=True)
            save_predictor(predictor, fresh)
            for file in fresh.iterdir():
                sync(file)
            if not target.exists():
                fresh.rename(target)
                return
            # Only the weights differ, so that at any moment the directory is whole.
            for file in fresh.iterdir():
                file.replace(target / file.name)
            fresh.rmdir()

    def save_state(self, content: bytes) -> None:
        """Write what the run needs to go on should it be cut off now."""
        with self._writing(STATE):
            write_atomically(self.path / STATE, content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            if not (self.path / STATE).exists():  # not federated, or before its first round
                again = "run it again in another directory"
            elif self._run["settings"]["survey"]:
                again = f"`pluralllm run --resume {shlex.quote(str(self.path))}`"
            else:  # of a deployment, where each node has its own
                again = f"`pluralllm deploy run DIR --resume {shlex.quote(str(self.path))}`"
            raise FederationError(
                f"cannot write {self.path / name}: {error}. What was there before is whole: mend "
                f"the cause, then {again}"
            ) from error

    def keep_best(
        self,
        number: int,
        evaluation: EvaluationResult,
        roles: Mapping[str, str],
        predictor: Predictor,
    ) -> None:
        """Save `predictor` as best/ if it is, by the train groups' mean alignment.

        Args:
            number: the round.
            evaluation: of the groups.
            roles: role of every group of the run.
        """
        train = evaluation.roles["train"]
        # A mean over some of the groups does not compare with a mean over all of them.
        if train is None or train.groups < list(roles.values()).count("train"):
            return
        if (score := train.selection_score) > self.best_score:
            self.best_score = score
            self.save_model("best", predictor)
            self.update(best_round=number, best_score=self.best_score)


@contextmanager
def recorded_run(
    path: Path, method: str, config: Mapping[str, Scalar], *, resume: bool = False
) -> Iterator[RunRecord]:
    """Begin the run directory at `path`, or go on with it, and write there how the block ends.

    Raises:
        UserError: the directory cannot be written, is in use, or already holds a run; to resume,
            see `check_resumable`.
    """
    with locked_run(path):
        if resume:
            found = check_resumable(path, config)
            record = RunRecord(path, found)
            record.update(**_RUNNING, resumed=[*found.get("resumed", []), _now()])
        else:
            if (path / "run.json").exists():
                raise FederationError(f"{path} already holds a run: give another out")
            record = RunRecord(path, {"schema": SCHEMA_VERSION})
            record.update(
                **_RUNNING,
                method=method,
                started=_now(),
                seed=config["seed"],
                settings=dict(config),
                survey=None,
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
            with suppress(FederationError):  # on a full disk; then the first error says it
                record.finish("failed", describe_error(error))
            raise
        # In this order: a run that is cut off here is completed, or can go on.
        record.finish("completed")
        (path / STATE).unlink(missing_ok=True)


@contextmanager
def locked_run(path: Path) -> Iterator[None]:
    """Keep other processes from writing the run directory `path` for the block; makes it.

    Raises:
        UserError: another one is writing it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise FederationError(f"cannot write the run directory {path}: {error}") from error
    with lock, held(lock, f"another process writes the run in {path}: wait for it, or end it"):
        yield


def check_resumable(path: Path, config: Mapping[str, Scalar]) -> dict[str, Any]:
    """Check that the run in `path` can go on with the settings `config`; returns its run.json.

    Raises:
        UserError: there is no run, it is completed, of another version of the app or of other
            settings (naming the first that differs), or was cut off before its first round.
    """
    run = read_run(path)
    if not run:
        raise FederationError(f"{path} holds no run to resume: it has no run.json")
    if run.get("status") == "completed":
        raise FederationError(f"the run in {path} is completed: there is nothing to resume")
    version = run["versions"]["pluralllm_app"]
    if version != __version__:
        raise FederationError(f"the run in {path} is of version {version}, this is {__version__}")
    before = run["settings"]
    for key in sorted({*before, *config} - {*NO_RESULT}):
        if before.get(key) != config.get(key):
            raise FederationError(
                f"the run in {path} has {key} = {before.get(key)}, now {key} = {config.get(key)}: "
                "resume it with the settings it began with"
            )
    if not (path / STATE).exists():
        raise FederationError(
            f"the run in {path} has no {STATE}: it is no federated run, or ended before its first "
            "round; start a new one"
        )
    return run


def reopen_record(path: Path) -> None:
    """Say in run.json that the run goes on."""
    RunRecord(path, read_run(path)).update(**_RUNNING)


def read_run(path: Path) -> dict[str, Any]:
    """What run.json of a run directory says; {} where there is none yet.

    Settings that came after the run are there with what the run did.

    Raises:
        UserError: it is damaged.
    """
    run = read_json(path / "run.json")
    if isinstance(run.get("settings"), dict):
        run["settings"] = ADDED_LATER | run["settings"]
    return run


def close_unfinished(path: Path, status: str, error: str | None) -> dict[str, Any]:
    """If run.json still says `running`, its run was cut off: set how it ended. Returns run.json.

    Raises:
        UserError: another process is writing the run.
    """
    if not (path / "run.json").exists():
        return {}
    with locked_run(path):
        run = read_run(path)
        if run.get("status") == "running":
            run |= {"status": status, "error": error, "finished": _now()}
            write_atomically(path / "run.json", json.dumps(run, indent=2).encode())
    return run


def describe_error(error: BaseException) -> str:
    """The message of an error of ours; of any other, its kind as well."""
    return f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def describe_machine() -> dict[str, Any]:
    """Versions of what a run depends on, and the hardware: keys `versions` and `hardware`."""
    return {"versions": _versions(), "hardware": _hardware()}


def _describe_survey(survey: Any) -> dict[str, Any]:
    return {key: getattr(survey, key) for key in ("name", "fingerprint", "dim", "metric")}


def _describe_groups(groups: Iterable[tuple[str, str, int]]) -> list[dict[str, Any]]:
    return [
        {"group": name, "role": role, "questions": questions} for name, role, questions in groups
    ]


def _show_group(entry: Mapping[str, Any] | None) -> str:
    return f"{entry['role']} with {entry['questions']} questions" if entry else "not there"


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
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # AVX2, AVX512, ...
        "cpus": os.cpu_count(),
        "gpus": gpus,
    }


def _processor() -> str:
    """The processor's name, where the system tells it; else its kind."""
    with suppress(OSError):
        said = Path("/proc/cpuinfo").read_text()
        if name := re.search(r"^model name\s*: (.+)$", said, re.MULTILINE):
            return name[1]
    return platform.processor() or platform.machine()
