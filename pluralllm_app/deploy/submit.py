"""`pluralllm deploy run`: submit a run to a SuperLink, follow it, and tell how it ended.

`flwr run` exits 0 also where the run failed. This asks the SuperLink how the run ended that it
submitted, and shows the record that the app writes on the server, as `pluralllm run` does.
"""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from rich.console import Console

from pluralllm_app.deploy.control import Control, connect
from pluralllm_app.deploy.layout import CONNECTION, read_groups
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.follow import follow, print_results
from pluralllm_app.record import STATE, close_unfinished
from pluralllm_app.run import APP, make_out, read_resumed_config, read_run_config, reopen
from pluralllm_app.settings import Scalar, Settings

POLL_SECONDS = 1.0


class Submitted:
    """A run at the SuperLink; an `Engine` to `follow`."""

    def __init__(self, control: Control, run_id: int) -> None:
        self._control = control
        self._run_id = run_id
        self._asked = 0.0
        self.error: str | None = None
        """Why the run failed, once `poll` says so."""

    def poll(self) -> str | None:
        """How the run ended: completed, failed or stopped; None while it goes on."""
        if time.monotonic() < self._asked + POLL_SECONDS:
            return None
        self._asked = time.monotonic()
        outcome, self.error = self._control.outcome(self._run_id)
        return outcome

    def wait(self) -> str:
        """Wait until the run has ended; how it did."""
        while (outcome := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return outcome


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
    if resume:
        if config or overrides or out:
            raise UserError("--resume takes the run's own settings: give it alone")
        run_config = read_resumed_config(resume) | {"expected-nodes": len(groups)}
    else:
        run_config = _new_config(config, overrides, out, len(groups))
    settings = Settings.from_config(run_config)
    with console.status("submitting the run"):
        make_strategy(settings)  # a wrong option of a strategy is told before anything is begun
        with connect(path) as control:
            _check_nodes(control, groups, settings, console)
    if resume:
        reopen(settings.path("out"), run_config)
    else:
        make_out(run_config, runs=path / "server" / "runs")
        settings = Settings.from_config(run_config)
    try:
        with connect(path) as control:
            _follow(control, path, settings, run_config, console)
    except UserError as error:
        if isinstance(error.__cause__, httpx.TransportError):
            error.add_note(_remedy(path, settings.path("out")))
        raise


def _remedy(path: Path, out: Path) -> str:
    if not (out / STATE).exists():
        return f"The run is cut off before its first round: begin it again, but not in {out}."
    again = f"pluralllm deploy run {shlex.quote(str(path))} --resume {shlex.quote(str(out))}"
    return f"The run is cut off. Once the SuperLink is there again: {again}"


def _new_config(
    file: Path | None, overrides: list[str], out: Path | None, groups: int
) -> dict[str, Scalar]:
    run_config = read_run_config(None, file, overrides, out)
    if run_config["survey"]:
        raise SettingsError(
            f"survey = {run_config['survey']!r}, but here each node has its own site: leave it and "
            "PLURALLLM_SURVEY empty"
        )
    run_config["expected-nodes"] = run_config["expected-nodes"] or groups
    return run_config


def _check_nodes(
    control: Control, groups: Mapping[str, str], settings: Settings, console: Console
) -> None:
    """Say which groups the run will wait for."""
    nodes = control.by_group(control.nodes_by_key())
    for slug, group in groups.items():
        if slug not in nodes:
            _say(console, f"{group}: its node is not registered, see `pluralllm deploy register`")
        elif nodes[slug].status != "online":
            _say(console, f"{group}: its node is not connected")
    online = sum(node.status == "online" for node in nodes.values())
    if online < (expected := settings.federation.expected_nodes):
        seconds = settings.federation.start_timeout
        _say(console, f"{online} of {expected} nodes are online, waiting for {seconds:g} s at most")


def _follow(
    control: Control,
    path: Path,
    settings: Settings,
    run_config: Mapping[str, Scalar],
    console: Console,
) -> None:
    """Submit the run, show it until it ends, and print its results."""
    out = settings.path("out")
    run_id = control.start_run(APP, run_config)
    _say(console, f"Run {run_id} in {out}")
    run = Submitted(control, run_id)
    try:
        rounds = list(follow(run, settings, console, "waiting for the nodes"))
        outcome = run.wait()
    except KeyboardInterrupt:
        home = shlex.quote(str(path.resolve() / "flwr-home"))
        _say(
            console, f"The run goes on. To end it: FLWR_HOME={home} flwr stop {run_id} {CONNECTION}"
        )
        raise
    record = close_unfinished(out, outcome, run.error)
    if outcome != "completed":
        raise UserError(f"the run {outcome}: {record.get('error') or run.error}\nSee {out}.")
    print_results(settings, rounds, console, f"The trained predictor: {out / 'model'}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
