"""The run directory: what a run was, what happened in each round, and its weights.

run.json         settings, versions, hardware, roster, status `running | completed | failed |
                 stopped` and, where it failed, the error
rounds.jsonl     one line a round, flushed: losses, failures, scores per group and per role
checkpoints/     round-0010/ ...: saved predictors, see `predictors.saved`
resume.safetensors   while a federated run is not completed: what it needs to go on
model/, best/    last weights; weights with the best mean alignment of the train groups' held-out
                 questions (never of the evaluation groups)
"""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pluralllm_app.core.atomic import sync, write_atomically
from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.records.lock import locked_run
from pluralllm_app.records.machine import hardware, versions
from pluralllm_app.records.reader import ROUNDS, RUN, read_run
from pluralllm_app.records.schema import (
    Noise,
    RecordedSurvey,
    RosterEntry,
    RoundEntry,
    RunInfo,
    Status,
    encode_file,
    encode_line,
)
from pluralllm_app.records.training import training_of
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.shared import Questionnaire

STATE = "resume.safetensors"
UNITS = {  # by the setting `noise`
    "respondents": "what one respondent of a train group answered",
    "groups": "all that one train group answered",
}
RUNNING: dict[str, Any] = {"status": "running", "error": None, "finished": None, "waiting": None}


class RunRecord:
    """Writes one run directory; run.json and the models are whole at any moment."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info
        self.questionnaire: Questionnaire | None = None  # of the survey, to be saved with models
        self.last_round: RoundEntry | None = None

    def update(self, **changes: Any) -> None:
        """Set fields of run.json."""
        self.info = replace(self.info, **changes)
        with self._writing(RUN):
            write_atomically(self.path / RUN, encode_file(self.info))

    def finish(self, status: Status, error: str | None = None) -> None:
        """Write the outcome of the run, which ends it: no more is recorded afterwards."""
        self.update(status=status, error=error, finished=now())

    @property
    def roster(self) -> Sequence[RosterEntry]:
        """The groups of the run, see `describe`; empty before that."""
        return self.info.roster or []

    def describe(self, survey: Any, groups: Iterable[tuple[str, str, int]]) -> None:
        """Write which survey and groups the run has.

        Args:
            survey: has the attributes name, fingerprint, dim and metric.
            groups: name, role and number of questions of each.
        """
        self.update(survey=describe_survey(survey), roster=describe_groups(groups))

    def append_round(self, entry: RoundEntry) -> None:
        """Append one round to rounds.jsonl."""
        with self._writing(ROUNDS), (self.path / ROUNDS).open("a", encoding="utf-8") as file:
            file.write(encode_line(entry))
            file.flush()
            os.fsync(file.fileno())
        self.last_round = entry

    def save_model(
        self, name: str, predictor: ContextPredictor, scored: RoundEntry | None = None
    ) -> None:
        """Write a predictor as directory `name`, replacing an older one of the same sizes.

        `scored` is the round whose evaluation scored it, for its card.
        """
        training = training_of(self.info, scored) if scored else None
        target = self.path / name
        fresh = target.with_name(f".{target.name}.new")
        with self._writing(name):
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                save_predictor(predictor, fresh, self.questionnaire, training)
                for file in fresh.iterdir():
                    sync(file)
            except OSError:  # a full disk has no room for half a model beside run.json
                shutil.rmtree(fresh, ignore_errors=True)
                raise
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
            elif self.info.settings["survey"]:
                again = f"`pluralllm run --resume {shlex.quote(str(self.path))}`"
            else:  # of a deployment, where each node has its own
                again = f"`pluralllm deploy run DIR --resume {shlex.quote(str(self.path))}`"
            raise FederationError(
                f"cannot write {self.path / name}: {error}. What was there before is whole: mend "
                f"the cause, then {again}"
            ) from error


def describe_survey(survey: Any) -> RecordedSurvey:
    """What a run records of a survey, which has the attributes of the result."""
    return RecordedSurvey(
        name=survey.name, fingerprint=survey.fingerprint, dim=survey.dim, metric=survey.metric
    )


def describe_groups(groups: Iterable[tuple[str, str, int]]) -> list[RosterEntry]:
    """What a run records of its groups, of name, role and number of questions of each."""
    return [RosterEntry(group=name, role=role, questions=count) for name, role, count in groups]


def new_run(path: Path, method: str, config: Mapping[str, Scalar]) -> RunInfo:
    """What run.json of a new run in `path` says before anything has happened.

    Raises:
        FederationError: `path` already holds a run.
    """
    if (path / RUN).exists():
        raise FederationError(f"{path} already holds a run: give another out")
    return RunInfo(
        method=method,
        started=now(),
        seed=int(config["seed"]),
        settings=dict(config),
        noise=noise_of(config),
        versions=versions(),
        hardware=hardware(),
    )


def noise_of(config: Mapping[str, Scalar]) -> Noise | None:
    """What the noise of a run hides, and what it spends; None without noise."""
    if config["noise"] == "none":
        return None
    epsilon, delta = float(config["epsilon"]), float(config["delta"])
    return Noise(unit=UNITS[str(config["noise"])], epsilon=epsilon, delta=delta)


def close_unfinished(path: Path, status: Status, error: str | None) -> RunInfo | None:
    """If run.json still says `running`, its run was cut off: set how it ended. Returns run.json.

    Raises:
        UserError: another process is writing the run.
    """
    if not (path / RUN).exists():
        return None
    with locked_run(path):
        run = read_run(path)
        if run and run.status == "running":
            record = RunRecord(path, run)
            record.finish(status, error)
            run = record.info
    return run


def describe_error(error: BaseException) -> str:
    """The message of an error of ours; of any other, its kind as well."""
    return f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def now() -> str:
    """The time, in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
