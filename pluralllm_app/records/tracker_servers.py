"""Whether the servers of MLflow and Weights & Biases can be used, asked before a run is started.

Their own clients try for many minutes.
"""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from pluralllm_app.core.environment import proxy_to, sparing_this_machine
from pluralllm_app.errors import SettingsError

SECONDS = 5.0  # to wait for an answer
_WANDB = "https://api.wandb.ai"
_UNSET = "start it, or unset MLFLOW_TRACKING_URI to write below the run directory"
_OFFLINE = "set WANDB_MODE=offline to write it below the run directory"


def check_server(tracker: str, remedy: str = "") -> None:
    """Check that the server of a tracker answers, if it has one, and that it has a key for it.

    Args:
        tracker: the setting.
        remedy: what to do where it does not answer; by default that of before a run.

    Raises:
        SettingsError: with the remedy.
    """
    if tracker == "mlflow":
        address = os.environ.get("MLFLOW_TRACKING_URI", "")
        if urlsplit(address).scheme in ("http", "https"):
            remedy = remedy or _UNSET
            _check_answer("MLflow", address, remedy)
    elif tracker == "wandb":
        _check_wandb(remedy or _OFFLINE)


def no_key(address: str = _WANDB) -> str:
    """What to say where Weights & Biases has no key for a server."""
    return f"tracker = 'wandb' has no key for {address}: run `wandb login`, or {_OFFLINE}"


def _check_wandb(remedy: str) -> None:
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return
    address = os.environ.get("WANDB_BASE_URL", "")
    settings = Path(os.path.expanduser(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")))
    if not address and (settings / "settings").exists():
        return  # wandb itself reads what it says, as of `wandb offline`
    address = address or _WANDB
    if not _has_key(address):
        raise SettingsError(no_key(address))
    _check_answer("W&B", address, remedy)


def _has_key(address: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            logins = netrc.netrc(os.path.expanduser(file)) if file else None
        except (OSError, netrc.NetrcParseError):
            continue
        if logins and logins.authenticators(urlsplit(address).netloc):
            return True
    return False


def _check_answer(whose: str, address: str, remedy: str) -> None:
    import httpx

    try:
        with sparing_this_machine():
            httpx.get(address, timeout=SECONDS, verify=False)  # it need not trust it to hear it
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        proxy = proxy_to(address, os.environ)
        way = f" through the proxy {proxy}" if proxy else ""
        raise SettingsError(
            f"no {whose} server answers at {address}{way} ({error}): {remedy}"
        ) from error
