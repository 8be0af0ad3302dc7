"""The `pluralllm deploy` commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pluralllm_app.deploy.layout import Deployment

deploy_app = typer.Typer(
    help="Run a federation on machines of their own: keys, start scripts, who is connected.",
    no_args_is_help=True,
)

DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of `init`.")]


@deploy_app.command("init")
def init_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory to write; new or empty.")
    ],
    server: Annotated[
        list[str],
        typer.Option(
            help="DNS name or IP address of the server; repeat for more, nodes take the first."
        ),
    ],
    groups: Annotated[list[str], typer.Option(help="Name of a group; repeat for more.")],
    port: Annotated[int, typer.Option(help="Port of the server.")] = 9443,
) -> None:
    """Make keys, certificates, start scripts and systemd units of a federation.

    Run it on the server: DIR/flwr-home names DIR by its absolute path. Each group's machine gets
    its DIR/nodes/... over a safe channel.

    Examples:

      pluralllm deploy init /opt/pluralllm --server flower.example.org --groups North --groups East

      pluralllm deploy init trial --server 127.0.0.1 --groups North --groups East
    """
    from pluralllm_app.deploy.layout import initialise

    _describe(initialise(directory, server, groups, port), Console())


@deploy_app.command("register")
def register_command(
    directory: DirectoryArgument,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Name of a group, may be repeated; default: all."),
    ] = None,
) -> None:
    """Make the nodes' public keys known to the running SuperLink, which refuses all others.

    Run it on the server. Nodes that are registered are left as they are.
    """
    from pluralllm_app.deploy.control import connect
    from pluralllm_app.deploy.layout import read_groups
    from pluralllm_app.errors import UserError
    from pluralllm_app.nearest import did_you_mean

    groups = read_groups(directory)
    for name in group or []:
        if name not in groups.values():
            raise UserError(
                f"no group {name!r} in {directory}: {did_you_mean(name, groups.values())}"
            )
    console = Console()
    with connect(directory) as control:
        registered = control.nodes()
        for slug, name in groups.items():
            if group and name not in group:
                continue
            if slug in registered:
                outcome = f"is registered already, as node {registered[slug].id}"
            else:
                outcome = f"registered as node {control.register(slug)}"
            console.print(f"{name}: {outcome}", markup=False, highlight=False, soft_wrap=True)


@deploy_app.command("status")
def status_command(directory: DirectoryArgument) -> None:
    """Show which groups are connected; exit status 1 unless all of them are.

    Run it on the server. A node is online while it reports to the SuperLink; one that was killed
    counts as online for up to a minute more.
    """
    from pluralllm_app.deploy.control import connect
    from pluralllm_app.deploy.layout import read_groups
    from pluralllm_app.deploy.status import status_table

    groups = read_groups(directory)
    with connect(directory) as control:
        nodes = control.nodes()
    Console().print(status_table(directory / "server" / "runs", groups, nodes))
    online = sum(node.status == "online" for node in nodes.values())
    Console().print(f"{online} of {len(groups)} groups online", highlight=False)
    if online < len(groups):
        raise typer.Exit(1)


def _describe(deployment: "Deployment", console: Console) -> None:
    from cryptography import x509

    from pluralllm_app.deploy.keys import fingerprint

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    path = deployment.path
    say(f"{path}: keys of a federation of {len(deployment.groups)} groups\n")
    names = deployment.server.certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    for what, made in (("authority", deployment.authority), ("server", deployment.server)):
        begin, end = made.certificate.not_valid_before_utc, made.certificate.not_valid_after_utc
        subject = made.certificate.subject.rfc4514_string()
        say(f"{what}: {subject}, valid {begin:%Y-%m-%d} to {end:%Y-%m-%d}")
    say(f"server is known as: {', '.join(str(name.value) for name in names.value)}\n")
    for slug, name in deployment.groups.items():
        say(f"node {slug}: {fingerprint(deployment.keys[slug].public)}  {name}")
    say(
        f"""
Next:
  start the SuperLink       {path}/server/start.sh
  register the nodes        pluralllm deploy register {path}
  to each group's machine   {path}/nodes/<node>, by a safe channel, then remove it here
  on each of them           pluralllm site --check site && ./start.sh, in that directory

Other machines reach nothing of the SuperLink but what nodes need. Let the firewall open its port
to the addresses of the nodes only. Whoever may log in on this machine may submit runs, that is
code for all nodes. {path}/ca/ca.key is not needed any more: move it to a safe place."""
    )
