"""`pluralllm deploy policy` and `peers`: what a group's node allows, and whose keys it knows."""

from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.deploy_texts import say
from pluralllm_app.core.terminal import Terminal


def policy_command(
    node: Annotated[Path, typer.Argument(metavar="NODE", help="Directory that `join` made.")],
) -> None:
    """Show what a group's node lets a run ask of it: its policy.toml, and what was asked so far.

    Run it on the node's machine. Example:

      pluralllm deploy policy /opt/pluralllm/node
    """
    from rich.markup import escape
    from rich.table import Table

    from pluralllm_app.federation.policy import POLICY, Policy
    from pluralllm_app.federation.policy_text import shown

    _check_node(node)
    table = Table()
    for column in ("rule", "here", "meaning"):
        table.add_column(column, overflow="fold")
    for row in shown(node):
        table.add_row(*map(escape, row))
    Terminal().print(table)
    for caution in Policy.read(node).cautions():
        say(f"{node / POLICY}: {caution}")


def peers_command(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Directory of a node, or of the server (`init`)."),
    ],
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT",
            help="Take the changed key with this fingerprint, as that group's operator says it.",
        ),
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Forget the key of a group that has left for good."),
    ] = None,
) -> None:
    """Show the groups' keys: at a node those that it knows, on the server those it names.

    Those of groups that may train are below [peers], the others below [evaluation-peers].

    They are printed in the form that a node's policy.toml takes, to pin them. Compare them with
    what the groups' operators say, over another channel than the server.

    Examples:

      pluralllm deploy peers /opt/pluralllm/node

      pluralllm deploy peers /opt/pluralllm/node --accept SHA256:...

      pluralllm deploy peers /opt/pluralllm/node --forget East
    """
    from pluralllm_app.errors import UserError
    from pluralllm_app.federation.peers import Peers
    from pluralllm_app.federation.peers import accept as take
    from pluralllm_app.federation.peers import forget as leave_out

    if accept and forget:
        raise UserError("--accept and --forget were given: give one at a time")
    if (directory / "server" / "groups.json").exists():
        if accept or forget:
            raise UserError(f"{directory} is the server's: it is a node that takes or forgets keys")
        _print("peers", _registered(directory, never_trains=False))
        _print("evaluation-peers", _registered(directory, never_trains=True))
        return
    _check_node(directory)
    if accept:
        say(f"{take(directory, accept)}: this node now takes the key {accept}")
        return
    if forget:
        leave_out(directory, forget)
        say(
            f"{forget}: this node no longer knows it. If the server names it again, the node "
            "believes the key that the server then says."
        )
        return
    peers = Peers.read(directory)
    if not peers.known:
        say("This node knows no key yet: the server names them when a run begins.")
    for table, never in (("peers", False), ("evaluation-peers", True)):
        of = {name: key for name, key in peers.known.items() if (name in peers.evaluation) == never}
        _print(table, of)
    for name, key in peers.offered.items():
        from pluralllm_app.federation.registration import fingerprint

        say(
            f"{name}: the server has named another key, {fingerprint(key.encode())}, and this node "
            "refuses runs that begin with it. If that group's operator confirms it: pluralllm "
            f"deploy peers {directory} --accept {fingerprint(key.encode())}"
        )


def _registered(directory: Path, never_trains: bool) -> dict[str, str]:
    from pluralllm_app.federation.registration import read_members

    server = directory / "server"
    return {
        member.name: (server / "nodes" / f"{slug}.pub").read_text("utf-8")
        for slug, member in read_members(server / "groups.json").items()
        if (member.role == "evaluation") == never_trains
    }


def _print(table: str, keys: dict[str, str]) -> None:
    import tomli_w

    from pluralllm_app.federation.registration import fingerprint

    shown = {name: fingerprint(key.encode()) for name, key in keys.items()}
    if shown:
        say(tomli_w.dumps({table: shown}).rstrip())


def _check_node(node: Path) -> None:
    from pluralllm_app.errors import UserError
    from pluralllm_app.federation.peers import KEY

    if not (node / KEY).exists():
        raise UserError(
            f"{node} is no node, because it has no {KEY}: `pluralllm deploy join` makes one"
        )
