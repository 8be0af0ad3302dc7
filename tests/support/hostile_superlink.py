"""`deploy.superlink` of an attacker: each node is sent the next bundle that lies in a directory.

Nodes are sent the true one where it is empty. It is `evil/`, beside that of the server.
"""

import sys
from pathlib import Path
from threading import Lock
from typing import Any

from flwr.superlink.servicer.fleet import fleet_handlers

from pluralllm_app.deploy import superlink


def main() -> None:
    """Run the SuperLink, with the arguments of the true one."""
    certificate = Path(sys.argv[sys.argv.index("--ssl-certfile") + 1])
    evil = certificate.parents[1] / "evil"
    get_fab = fleet_handlers.get_fab

    one_at_a_time = Lock()

    def send_next(request: Any, state: Any) -> Any:
        response = get_fab(request=request, state=state)
        with one_at_a_time:
            for file in sorted(evil.glob("*.fab"))[:1]:
                response.fab.content = file.read_bytes()
                file.unlink()
        return response

    fleet_handlers.get_fab = send_next
    superlink.main()


if __name__ == "__main__":
    main()
