"""Whether a run that was cut off can go on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pluralllm_app import __version__
from pluralllm_app.core.wording import many
from pluralllm_app.errors import FederationError
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.schema import RecordedSurvey, RosterEntry, RunInfo
from pluralllm_app.records.writer import RUNNING, STATE, RunRecord
from pluralllm_app.settings import NO_RESULT, Scalar


def check_resumable(path: Path, config: Mapping[str, Scalar]) -> RunInfo:
    """Check that the run in `path` can go on with the settings `config`; returns its run.json.

    Raises:
        UserError: there is no run, it is completed, of another version of the app or of other
            settings (naming the first that differs), or was cut off before its first round.
    """
    run = read_run(path)
    if run is None:
        raise FederationError(f"{path} holds no run to resume: it has no run.json")
    if run.status == "completed":
        raise FederationError(f"the run in {path} is completed: there is nothing to resume")
    version = run.versions["pluralllm_app"]
    if version != __version__:
        raise FederationError(f"the run in {path} is of version {version}, this is {__version__}")
    before = run.settings
    for key in sorted({*before, *config} - {*NO_RESULT}):
        if before.get(key) != config.get(key):
            raise FederationError(
                f"the run in {path} has {key} = {before.get(key)}, now {key} = {config.get(key)}: "
                "resume it with the settings it began with"
            )
    if not (path / STATE).exists():
        if run.method != "federated":
            raise FederationError(f"the run in {path} is no federated run: start it anew")
        raise FederationError(
            f"the run in {path} ended before its first round, so that there is nothing to go on "
            f"from ({STATE} is missing): remove it, and start it anew"
        )
    return run


def reopen_record(path: Path) -> None:
    """Say in run.json of the run in `path`, which has been checked, that it goes on."""
    if run := read_run(path):
        RunRecord(path, run).update(**RUNNING)


def check_same(
    path: Path, run: RunInfo, survey: RecordedSurvey, roster: Sequence[RosterEntry]
) -> None:
    """Check that survey and groups are those that the run in `path` began with.

    Raises:
        FederationError: naming what differs.
    """
    assert run.survey is not None
    assert run.roster is not None
    for key in ("name", "fingerprint", "dim", "metric"):
        before, now = getattr(run.survey, key), getattr(survey, key)
        if before != now:
            raise FederationError(
                f"the run in {path} is of a survey with {key} {before}, the nodes have {now}: give "
                "them the survey it began with"
            )
    groups = {entry.group: entry for entry in run.roster}
    groups_now = {entry.group: entry for entry in roster}
    for name in sorted({*groups, *groups_now}):
        if groups.get(name) != groups_now.get(name):
            was, is_now = _show(groups.get(name)), _show(groups_now.get(name))
            raise FederationError(
                f"in the run in {path} group {name!r} was {was}, now it is {is_now}: a run goes on "
                "with the groups it began with"
            )


def _show(entry: RosterEntry | None) -> str:
    return f"{entry.role} with {many(entry.questions, 'question')}" if entry else "not there"
