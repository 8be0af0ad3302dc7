"""`python -m pluralllm_app.deploy.superlink`: flower-superlink, open to nodes alone.

Flower serves three APIs on one port, and asks nobody who he is but the nodes: Fleet (nodes),
Control (whoever reaches it registers nodes and submits code that all machines run) and Runtime (the
ServerApp's own process). Here, other machines reach the Fleet API alone; Control and Runtime
answer this machine. So who may log in on the server may submit runs, and nobody else.

PLURALLLM_MESSAGE_MIB is how many MiB a node may send in one body, by default a piece of a message
as Flower cuts it and a MiB for the rest, however large the model.
"""

import argparse
import os
import sys
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pluralllm_app.core.environment import take_environment
from pluralllm_app.core.private_files import check_private_arguments
from pluralllm_app.deploy.admission import Admission
from pluralllm_app.deploy.connections import Connections
from pluralllm_app.deploy.serving import serve
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.federation.flower_apps import OwnApp
from pluralllm_app.federation.flower_compat import FLEET_PATH, piece_size, run_superlink
from pluralllm_app.federation.registration import SERVER

LARGEST = "PLURALLLM_MESSAGE_MIB"
MIB = 1024**2


class LocalControl:
    """Refuses what comes from another machine, except calls of the Fleet API."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on."""
        if scope["type"] == "lifespan" or scope["path"].startswith(FLEET_PATH) or _is_local(scope):
            await self.app(scope, receive, send)
        else:
            reason, headers = "only nodes are served from other machines\n", {"connection": "close"}
            refusal = PlainTextResponse(reason, 403, headers)
            await refusal(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    return ip_address(scope["client"][0]).is_loopback


def main() -> None:
    """Run flower-superlink, with its arguments."""
    take_environment()
    check_private_arguments(sys.argv, "--ssl-keyfile")
    largest = _largest_body()
    # The web server would take the word of these proxies for where a request comes from.
    os.environ.pop("FORWARDED_ALLOW_IPS", None)
    _name_registration()
    OwnApp.of(own_files()).install_alone()
    connections = Connections()
    admission = Middleware(Admission, connections=connections, largest=largest)
    run_superlink([Middleware(LocalControl), admission], partial(serve, connections=connections))


def _largest_body() -> int:
    """Bytes of a node's body."""
    text = os.environ.get(LARGEST, "")
    if not text:
        return piece_size() + MIB
    if not text.isdecimal() or not (size := int(text) * MIB) > piece_size():
        sys.exit(f"{LARGEST}={text!r} must be a whole number above {piece_size() // MIB}")
    return size


def _name_registration() -> None:
    """Tell the apps where the groups are registered: beside the server's certificate."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ssl-certfile", type=Path)
    certificate = parser.parse_known_args()[0].ssl_certfile
    os.environ.pop(SERVER, None)
    if certificate and (certificate.parent / "groups.json").exists():
        os.environ[SERVER] = str(certificate.resolve().parent)


if __name__ == "__main__":
    main()
