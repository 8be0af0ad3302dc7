"""`pluralllm deploy run`: submit a run to a SuperLink, follow it, and tell how it ended.

`flwr run` exits 0 also where the run failed. This asks the SuperLink how the run ended that it
submitted, and shows the record that the app writes on the server, as `pluralllm run` does.
"""

import shlex
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console

from pluralllm_app.core.terminal import Terminal
from pluralllm_app.core.wording import many
from pluralllm_app.deploy.control import Control, connect
from pluralllm_app.deploy.groups import read_groups, read_roles
from pluralllm_app.deploy.invitation import INVITATION
from pluralllm_app.deploy.layout import CONNECTION, QUESTIONNAIRE
from pluralllm_app.engines.app_files import APP, app_files
from pluralllm_app.engines.base import Engine, Outcome
from pluralllm_app.engines.follow import follow
from pluralllm_app.engines.run_config import read_resumed_config, read_run_config
from pluralllm_app.engines.run_directory import make_run_directory, reopen
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning.registry import caution, needs_questions
from pluralllm_app.records.console import print_results
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.schema import RoundEntry, RunInfo
from pluralllm_app.records.trackers import check_tracker
from pluralllm_app.records.writer import STATE, close_unfinished
from pluralllm_app.settings import Scalar, Settings

POLL_SECONDS = 5.0  # run.json tells sooner how the run ends, if it was begun at all
PATIENCE_SECONDS = 20.0  # without an answer of the SuperLink


class Submitted(Engine):
    """A run at the SuperLink, which goes on there where this process ends.

    Args:
        control: a connection to the SuperLink.
        run_config: of the run.
    """

    run_id: int
    """The SuperLink's number of the run, once it is started."""

    def __init__(self, control: Control, run_config: Mapping[str, Scalar]) -> None:
        self._control = control
        self._run_config = run_config
        self._outcome: Outcome | None = None

    def start(self) -> None:
        self.run_id = self._control.start_run(app_files(APP), self._run_config)
        self._asked = self._answered = time.monotonic()

    def poll(self) -> Outcome | None:
        """How the run ended; None while it goes on.

        Raises:
            httpx.TransportError: the SuperLink has not answered for `PATIENCE_SECONDS`.
        """
        now = time.monotonic()
        if self._outcome or now < self._asked + POLL_SECONDS:
            return self._outcome
        self._asked = now
        try:
            self._outcome = self._control.outcome(self.run_id)
            self._answered = now
        except httpx.TransportError:
            if now >= self._answered + PATIENCE_SECONDS:
                raise
        return self._outcome

    def end(self) -> None:
        """Nothing is left to end: the run is the SuperLink's, and this process has none for it."""


def submit(
    path: Path,
    config: Path | None,
    overrides: list[str],
    out: Path | None,
    resume: Path | None,
    console: Console,
) -> None:
    """Run the federation of the deployment at `path`, and print its results.

    Args:
        path: directory of the deployment.
        config: file of settings.
        overrides: single settings.
        out: run directory to make; None: a new one in server/runs.
        resume: run directory to go on with; config, overrides and out are then as they were.
        console: where the run is shown.

    Raises:
        UserError: anything the user can mend: settings, the SuperLink, what the run failed of.
    """
    groups = read_groups(path)
    read_roles(path)  # the server's app needs them
    if not groups:
        raise UserError(
            f"no group is in {path} yet: give {INVITATION} to each group, and let it in with "
            "`pluralllm deploy admit`"
        )
    wanted = list(groups.values())
    if resume:
        if config or overrides or out:
            raise UserError("--resume takes the run's own settings: give it alone")
        run_config = read_resumed_config(resume)  # it waits for the groups that it began with
        before = read_run(resume)
        wanted = [entry.group for entry in (before and before.roster) or []]
    else:
        run_config = _new_config(path, config, overrides, out, len(groups))
    settings = Settings.from_config(run_config)
    with console.status("checking settings and nodes"):
        make_strategy(settings)  # checks its options
        check_tracker(settings.federation.tracker)
        with connect(path) as control:
            missing = missing_nodes(control, groups, wanted)
    if note := caution(settings):
        _say(console, note)
    _say_what_it_waits_for(missing, wanted, settings, console)
    if resume:
        reopen(settings.path("out"), run_config)
    else:
        runs = path / "server" / "runs"
        run_config["out"] = str(make_run_directory(run_config, runs=runs))
        settings = Settings.from_config(run_config)
    out = settings.path("out")
    try:
        with connect(path) as control:
            outcome, rounds = _follow(control, path, settings, run_config, console)
            if outcome.status == "failed":
                missing = missing_nodes(control, groups, wanted)
    except UserError as error:
        if isinstance(error.__cause__, httpx.TransportError):
            error.add_note(_remedy(path, out))
        raise
    finally:
        with suppress(OSError):  # where nothing was begun; a run that was makes it again
            out.rmdir()
    if outcome.status != "completed":
        said = "was stopped" if outcome.status == "stopped" else "failed"
        lines = [f"the run {said}" + (f": {outcome.error}" if outcome.error else "")]
        lines += [f"now {line}" for line in missing if outcome.status == "failed"]
        if (out / STATE).exists():
            lines.append(f"To go on, once the cause is mended: {_again(path, out)}")
        raise UserError("\n".join([*lines, f"See {out}."]))
    print_results(out, rounds, console, f"The trained predictor: {out / 'model'}")


def _new_config(
    path: Path, file: Path | None, overrides: list[str], out: Path | None, groups: int
) -> dict[str, Scalar]:
    run_config = read_run_config(None, file, overrides, out)
    if run_config["survey"]:
        raise SettingsError(
            f"survey = {run_config['survey']!r}, but here each node has its own site: leave it and "
            "PLURALLLM_SURVEY empty"
        )
    if needs_questions(run_config):
        place = Path(str(run_config["questionnaire"] or path.resolve() / QUESTIONNAIRE))
        if not place.is_dir():
            raise SettingsError(
                "the server needs the survey's questions to learn factors: run "
                f"`pluralllm questionnaire SURVEY --out {shlex.quote(str(place))}` first"
            )
        run_config["questionnaire"] = str(place)
    run_config["expected-nodes"] = expected = run_config["expected-nodes"] or groups
    if isinstance(expected, int) and expected > groups:
        raise SettingsError(
            f"expected-nodes = {expected}, and the deployment has {many(groups, 'group')}: "
            "leave it 0 to wait for all of them"
        )
    return run_config


def missing_nodes(
    control: Control, groups: Mapping[str, str], wanted: Collection[str]
) -> list[str]:
    """Of which wanted groups the node is not online, a line each; `groups` by slug."""
    nodes = control.by_group(control.nodes_by_key())
    lines = []
    for slug, group in groups.items():
        if group in wanted and slug not in nodes:
            lines.append(f"{group}: its node is not registered, see `pluralllm deploy register`")
        elif group in wanted and nodes[slug].status != "online":
            lines.append(f"{group}: its node is not connected")
    gone = [name for name in wanted if name not in groups.values()]
    return lines + [f"{name}: it was removed, see `pluralllm deploy admit`" for name in gone]


def _say_what_it_waits_for(
    missing: list[str], groups: Collection[str], settings: Settings, console: Console
) -> None:
    for line in missing:
        _say(console, line)
    federation = settings.federation
    online, expected = len(groups) - len(missing), federation.expected_nodes or len(groups)
    _say(console, f"Groups of this run: {', '.join(groups)}")
    if online < expected:
        _say(
            console,
            f"{online} of {expected} nodes are online, waiting for {federation.start_timeout:g} s "
            "at most",
        )


def _follow(
    control: Control,
    path: Path,
    settings: Settings,
    run_config: Mapping[str, Scalar],
    console: Console,
) -> tuple[Outcome, list[RoundEntry]]:
    """Submit the run, show it until it ends; returns how it ended, and its rounds."""
    out = settings.path("out")
    flwr = f"FLWR_HOME={shlex.quote(str(path.resolve() / 'flwr-home'))} flwr"
    said = (
        "Interrupted while the run was being submitted. To see whether it goes on: "
        f"{flwr} ls {CONNECTION}"
    )
    try:
        run = Submitted(control, run_config)
        with console.status("submitting the run"):
            run.start()
        said = f"The run goes on, see {out}. To end it: {flwr} stop {run.run_id} {CONNECTION}"
        _say(console, f"Run {run.run_id} in {out}")
        rounds = list(follow(run, settings, console, "waiting for the nodes"))
        outcome = _recorded_outcome(read_run(out))
        if outcome is None:
            # The app's process did not get as far as to say so, or still ends.
            outcome = run.wait()
            with suppress(UserError):
                info = close_unfinished(out, outcome.status, outcome.error)
                outcome = _recorded_outcome(info) or outcome
    except KeyboardInterrupt:
        _say(Terminal(stderr=True), said)  # standard output may be what is gone
        raise
    return outcome, rounds


def _recorded_outcome(info: RunInfo | None) -> Outcome | None:
    if info is None or info.status == "running":
        return None
    return Outcome(info.status, info.error or "")


def _remedy(path: Path, out: Path) -> str:
    if not (out / STATE).exists():
        return "If the run was cut off, it had done nothing: begin it again, with another --out."
    return f"If the run was cut off: {_again(path, out)}"


def _again(path: Path, out: Path) -> str:
    return f"pluralllm deploy run {shlex.quote(str(path))} --resume {shlex.quote(str(out))}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
