"""`python -m pluralllm_app.deploy.supernode`: flower-supernode as a deployment needs it.

It runs the code that is installed on its machine, where Flower's own runs what the server sends. It
waits until it is let in, where Flower's own ends at once if the SuperLink does not know its key, or
still counts the node as connected: for up to a minute after it was killed, or ended together with
the SuperLink. Flower's own also needs a port of its own for its app's processes, and takes no 0;
here the system picks one on loopback.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pluralllm_app.core.environment import proxy_to, take_environment, unusable_proxies
from pluralllm_app.core.private_files import check_private_arguments
from pluralllm_app.deploy.scripts import toml_text
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.errors import UserError
from pluralllm_app.federation.audit_log import AUDIT_LOG, AuditLog
from pluralllm_app.federation.flower_node import NotLetInError, run_supernode
from pluralllm_app.federation.node_files import prepare_node
from pluralllm_app.federation.policy import POLICY

RETRY_SECONDS = 5.0
_HOST = "127.0.0.1"
_WAITING = (
    "The SuperLink does not let this node in, which goes on asking every "
    f"{RETRY_SECONDS:g} s. A new node waits until the server's operator has let it in, by "
    "`pluralllm deploy admit`, and by `pluralllm deploy register` where the SuperLink did not run "
    "then. One that was killed still counts as connected for up to a minute. If it is neither, "
    "another process runs as this node, or it was removed and needs a new key."
)

Answer = TypeVar("Answer")


def enter_patiently(ask: Callable[[], Answer], leave: Callable[[Answer], None]) -> Answer:
    """Ask the SuperLink to let the node in, as often as needed; returns its answer.

    Args:
        ask: raises NotLetInError where it does not.
        leave: says good-bye after an answer.
    """
    refused = False
    while True:
        try:
            answer = ask()
        except NotLetInError:
            if not refused:
                print(_WAITING, flush=True)
            refused = True
        else:
            if not refused:
                return answer
            # A run learns that the node has lost what it was doing only while it is away.
            leave(answer)
            refused = False
        time.sleep(RETRY_SECONDS)


def directory_of(arguments: list[str]) -> Path:
    """The directory of a node's key, for which there is an argument."""
    return Path(arguments[arguments.index("--auth-supernode-private-key") + 1]).resolve().parent


def with_node(arguments: list[str], node: Path) -> list[str]:
    """The arguments, whose node config also names the node's directory.

    It gets a secret if it has none, and what is risky in its policy is said.

    Raises:
        UserError: see `prepare_node`.
    """
    arguments = list(arguments)
    policy = prepare_node(node)
    for caution in policy.cautions():
        print(f"{node / POLICY}: {caution}", flush=True)
    arguments[arguments.index("--node-config") + 1] += f" node={toml_text(str(node))}"
    return arguments


def main() -> None:
    """Run flower-supernode, with its arguments but host and port."""
    address = f"https://{sys.argv[sys.argv.index('--superlink') + 1]}"
    for name in unusable_proxies(os.environ):
        print(f"{name} is not used: proxies are http://, https:// or socks5:// and a host")
    take_environment()
    check_private_arguments(sys.argv, "--auth-supernode-private-key")
    if proxy := proxy_to(address, os.environ):
        print(f"The SuperLink is called through the proxy {proxy}.", flush=True)
    with socket.create_server((_HOST, 0)) as free:
        port = free.getsockname()[1]
    sys.argv += ["--host", _HOST, "--port", str(port)]
    try:
        node = directory_of(sys.argv)
        sys.argv = with_node(sys.argv, node)
        run_supernode(enter_patiently, own_files, AuditLog(node / AUDIT_LOG))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
