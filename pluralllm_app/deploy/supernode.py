"""`python -m pluralllm_app.deploy.supernode`: flower-supernode that waits until it is let in.

Flower's own ends at once where the SuperLink does not know its key, or still counts the node as
connected: for up to a minute after it was killed, or ended together with the SuperLink. It also
needs a port of its own for its app's processes, and takes no 0; here the system picks one on
loopback.
"""

import socket
import sys
import time
from contextlib import suppress

import httpx
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

RETRY_SECONDS = 5.0
_HOST = "127.0.0.1"
_WAITING = (
    "The SuperLink does not let this node in. If it was killed less than a minute ago, it still "
    "counts as connected. If not, another process runs as this node, or its key is not registered: "
    "run `pluralllm deploy register` on the server; a node that was removed needs a new key. "
    f"Trying again every {RETRY_SECONDS:g} s."
)


class PatientClient(FleetHttpClient):
    """A node's client that asks again where it is not let in."""

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:
        """Tell the SuperLink that the node is here, as often as needed."""
        refused = False
        while True:
            try:
                response = super().ActivateNode(request)
            except httpx.HTTPStatusError as error:
                known = FlowerError.from_json(error.response.text)
                if not known or known.code != ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                    raise
                if not refused:
                    print(_WAITING, flush=True)
                refused = True
            else:
                if not refused:
                    return response
                # A run learns that the node has lost what it was doing only while it is away.
                with suppress(httpx.HTTPStatusError):  # removed meanwhile, as the next try tells
                    self.DeactivateNode(DeactivateNodeRequest(node_id=response.node_id))
                refused = False
            time.sleep(RETRY_SECONDS)


def main() -> None:
    """Run flower-supernode, with its arguments but host and port."""
    fleet_http_connection.FleetHttpClient = PatientClient  # type: ignore[attr-defined]
    with socket.create_server((_HOST, 0)) as free:
        port = free.getsockname()[1]
    sys.argv += ["--host", _HOST, "--port", str(port)]
    flower_supernode()


if __name__ == "__main__":
    main()
