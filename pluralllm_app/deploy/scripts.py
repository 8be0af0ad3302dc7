"""Start scripts of a deployment.

Files have a group's slug of a-z, 0-9 and "-". Its name is only in the script of its node, for the
node's config, with whatever a shell might read in another way written as an escape of TOML.
"""

import re

from pluralllm_app.deploy.addresses import bind_address, with_port

_HEAD = """\
set -eu
umask 077
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
if ! command -v pluralllm >/dev/null; then
    echo "pluralllm is not on the PATH: activate the app's virtual environment" >&2
    exit 1
fi
for file in {files}; do
    if ! [ -r "$here/$file" ]; then
        echo "cannot read $here/$file, which \\`pluralllm deploy {maker}\\` wrote: restore it" >&2
        exit 1
    fi
done
# A SuperLink with a damaged one starts all the same, and leaves every run pending.
pluralllm deploy check-certificate "$here/ca.crt"
export FLWR_HOME="$here/state/flwr-home" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.2  # seconds a message waits for its process, at most
unset PYTHONDONTWRITEBYTECODE  # every message starts a process: it reads compiled bytecode
# App processes import from the working directory: it stays empty.
mkdir -p "$here/state/empty" "$FLWR_HOME"
"""

_SUPERLINK = """\
#!/bin/sh
# Starts the SuperLink on {address}. Its state is in state/ beside this script.
# Other machines reach the Fleet API alone, where nodes prove their keys. The Control API, which
# runs whatever code is submitted, asks for no login and so answers this machine alone.
# Let the firewall open the port to the addresses of the nodes only.
{head}cd "$here/state/empty"
exec python3 -m pluralllm_app.deploy.superlink \\
    --ssl-ca-certfile "$here/ca.crt" \\
    --ssl-certfile "$here/server.crt" \\
    --ssl-keyfile "$here/server.key" \\
    --enable-supernode-auth \\
    --disable-runtime-dependency-installation \\
    --database "$here/state/superlink.db" \\
    --host {host} --port {port}
"""

_SUPERNODE = """\
#!/bin/sh
# Starts the SuperNode of one group, once its site is checked. The site is the directory site/
# beside this script, or the one that PLURALLLM_SITE names.
# PLURALLLM_DEVICE (cpu, cuda, cuda:1 and so on) is where this node computes, whatever the run's
# settings say.
{head}config=$(pluralllm deploy node-config -- '{group}' "${{PLURALLLM_SITE:-$here/site}}")
echo "calling the SuperLink at {superlink}"
cd "$here/state/empty"
exec python3 -m pluralllm_app.deploy.supernode \\
    --root-certificates "$here/ca.crt" \\
    --superlink {superlink} \\
    --auth-supernode-private-key "$here/node.key" \\
    --node-config "$config"
"""


def superlink_script(servers: list[str], port: int) -> str:
    """The script that starts the SuperLink.

    It binds to loopback if all `servers` are loopback, and to IPv6 if one is an IPv6 address.
    """
    host = bind_address(servers)
    head = _HEAD.format(files="ca.crt server.crt server.key", maker="init")
    return _SUPERLINK.format(head=head, host=host, port=port, address=with_port(host, port))


def supernode_script(superlink: str, group: str) -> str:
    """The script that starts a group's SuperNode of the SuperLink at `superlink` (host:port)."""
    head = _HEAD.format(files="ca.crt node.key", maker="join")
    return _SUPERNODE.format(head=head, superlink=superlink, group=toml_text(group))


def toml_text(text: str) -> str:
    """A text of TOML that a shell and Flower's reader of node configs leave as it is."""
    return '"' + re.sub(r"[^A-Za-z0-9 ._-]", lambda odd: rf"\U{ord(odd[0]):08x}", text) + '"'
