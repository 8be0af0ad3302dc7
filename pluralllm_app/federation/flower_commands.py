"""What a simulation uses of Flower's commands and reads from its logs; see `flower_compat`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

# Environment variables of Flower's processes. These keep them from calling their makers' servers:
ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
HOME = "FLWR_HOME"  # the directory of Flower's own configuration and state
POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # seconds between looks for new tasks

# What Flower says of a run, in its list of runs or in its logs.
EXCEPTION_PREFIXES = ("Simulation failed with exception: ", "ServerApp failed with exception: ")
GENERIC_FAILURE = "An error was encountered. Ending simulation."
PROCESS_LOST = "No heartbeat received from the task"
RAY_LATE = "timed out during startup"  # Ray's own limit of 30 seconds, which nothing changes
RUN_STARTED = "Successfully started run"
LOGGED_EXCEPTION = re.compile(r"An exception occurr?ed ?!! (.+)")
_NOTICE = re.compile(r"\s\s|╭|╰|INFO|WARNING|Traceback|ERROR :\s+\[/|Using SuperLink|.* INFO \[")


def load_flwr() -> Callable[..., None]:
    """Import Flower's command, which takes a moment; returns what runs it in this process.

    That is called with the command's arguments, and raises SystemExit where it fails.
    """
    from flwr.cli.app import app

    def flwr(*arguments: str) -> None:
        try:
            app(arguments, prog_name="flwr")
        except SystemExit as end:
            if end.code:
                raise

    return flwr


def listed_outcome(listing: Mapping[str, Any], log: str) -> tuple[str, str]:
    """How the only run of a SuperLink ended (completed, failed, stopped), and why it failed or "".

    `flwr run` exits 0 even where the app raised. Only what `flwr ls --format json` printed, the
    listing, tells, and where that is no help, what the SuperLink printed, the log.
    """
    if not listing["success"]:
        return "failed", f"Flower does not say how the run ended: {listing['error-message']}"
    run = listing["runs"][0]
    status = run["status"].removeprefix("finished:")
    if status == "completed":
        return status, ""
    error = without_prefix(run["status-details"])
    if error == GENERIC_FAILURE:
        logged = LOGGED_EXCEPTION.search(log)
        error = logged[1] if logged else error
    elif error == PROCESS_LOST:
        error = "the run's process was killed, perhaps out of memory: use fewer actors"
    if RAY_LATE in error:
        error = (
            "Ray did not start within 30 seconds, as on a machine that is busy with other work: "
            "start the run again once it is less busy"
        )
    return status, error or f"the run was {status}"


def cause_in(log: str) -> str:
    """The last lines of a log that say what went wrong, without notices and tracebacks."""
    lines = [line for line in log.splitlines() if line.strip() and not _NOTICE.match(line)]
    causes = [re.sub(r"^(ERROR :|.* ERROR \[[\w.]+\])", "", line).strip("│ ") for line in lines]
    return "; ".join(causes[-3:]) or "no reason was given"


def without_prefix(details: str) -> str:
    """The message of the app's exception, of what Flower tells of a failed run."""
    first, second = EXCEPTION_PREFIXES
    return details.removeprefix(first).removeprefix(second)
