"""What this app knows of Flower's variables, texts and logs; see `flower_compat`."""

import re

# Environment variables of Flower's processes. These keep them from calling their makers' servers:
ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
HOME = "FLWR_HOME"  # the directory of Flower's own configuration and state

# What Flower says of a run, in its list of runs or in its logs.
EXCEPTION_PREFIXES = ("Simulation failed with exception: ", "ServerApp failed with exception: ")
GENERIC_FAILURE = "An error was encountered. Ending simulation."
PROCESS_LOST = "No heartbeat received from the task"
RAY_LATE = "timed out during startup"  # Ray's own limit of 30 seconds, which nothing changes
LOGGED_EXCEPTION = re.compile(r"An exception occurr?ed ?!! (.+)")
_NOTICE = re.compile(r"\s\s|╭|╰|INFO|WARNING|Traceback|ERROR :\s+\[/|Using SuperLink|.* INFO \[")


def cause_of(error: str, log: str) -> str:
    """Why a simulation failed, in place of what its exception says: "" where it did not.

    Args:
        error: message of the exception.
        log: what its processes printed.
    """
    if error == GENERIC_FAILURE:
        logged = LOGGED_EXCEPTION.search(log)
        error = logged[1] if logged else error
    if RAY_LATE in error:
        error = (
            "Ray did not start within 30 seconds, as on a machine that is busy with other work: "
            "start the run again once it is less busy"
        )
    return error


def cause_in(log: str) -> str:
    """The last lines of a log that say what went wrong, without notices and tracebacks."""
    lines = [line for line in log.splitlines() if line.strip() and not _NOTICE.match(line)]
    causes = [re.sub(r"^(ERROR :|.* ERROR \[[\w.]+\])", "", line).strip("│ ") for line in lines]
    return "; ".join(causes[-3:]) or "no reason was given"


def without_prefix(details: str) -> str:
    """The message of the app's exception, of what Flower tells of a failed run."""
    first, second = EXCEPTION_PREFIXES
    return details.removeprefix(first).removeprefix(second)
