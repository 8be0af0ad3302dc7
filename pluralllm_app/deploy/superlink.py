"""`python -m pluralllm_app.deploy.superlink`: flower-superlink, open to nodes alone.

Flower serves three APIs on one port, and asks nobody who he is but the nodes: Fleet (nodes),
Control (whoever reaches it registers nodes and submits code that all machines run) and Runtime (the
ServerApp's own process). Here, other machines reach the Fleet API alone; Control and Runtime
answer this machine. So who may log in on the server may submit runs, and nobody else.
"""

import os
from ipaddress import ip_address

from flwr.common.constant import FLWR_INTERNAL_GRPC_CONTROL_API, FLWR_INTERNAL_GRPC_FLEET_API
from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_FLEET = "/v1/fleet/"
# Environment variables that would let others pass the fence.
_WAYS_AROUND = (
    "FORWARDED_ALLOW_IPS",  # uvicorn takes these proxies' word for where a request comes from
    FLWR_INTERNAL_GRPC_CONTROL_API,  # Flower serves these APIs on ports of their own as well
    FLWR_INTERNAL_GRPC_FLEET_API,
)


class LocalControl:
    """Refuses what comes from another machine, except calls of the Fleet API."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on."""
        if scope["type"] == "lifespan" or scope["path"].startswith(_FLEET) or _is_local(scope):
            await self.app(scope, receive, send)
        else:
            refusal = PlainTextResponse("only nodes are served from other machines\n", 403)
            await refusal(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    return ip_address(scope["client"][0]).is_loopback


def main() -> None:
    """Run flower-superlink, with its arguments."""
    for way_around in _WAYS_AROUND:
        os.environ.pop(way_around, None)
    extensions.get_middleware = lambda: (Middleware(LocalControl),)
    flower_superlink()


if __name__ == "__main__":
    main()
