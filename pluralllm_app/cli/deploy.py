"""The `pluralllm deploy` commands."""

import os
import shlex
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from pluralllm_app.cli.deploy_joining import admit_command, join_command
from pluralllm_app.cli.deploy_node import peers_command, policy_command
from pluralllm_app.cli.deploy_reward import reward_command
from pluralllm_app.cli.deploy_texts import describe, say, slug_of, validity
from pluralllm_app.cli.options import ConfigOption, SettingOption, starting
from pluralllm_app.cli.settings import SettingsCommand
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal

deploy_app = typer.Typer(
    help="Run a federation on several machines: keys, start scripts, who is connected.",
    no_args_is_help=True,
)


@deploy_app.callback()
def check_installation() -> None:
    """Refuse every command where Flower is not installed."""
    need("federation", "`pluralllm deploy`")


EvaluationGroups = Annotated[
    list[str] | None,
    typer.Option(help="Name of a group that never trains and is only scored; repeat for more."),
]
DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Directory that `init` made.")
]


@deploy_app.command("init")
def init_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory to make; it must be new or empty.")
    ],
    server: Annotated[
        list[str],
        typer.Option(
            help="DNS name or IP address of the server. Repeat for more; nodes use the first."
        ),
    ],
    questionnaire: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The questions that all groups answered, of `pluralllm questionnaire`.",
        ),
    ],
    port: Annotated[int, typer.Option(help="Port of the server.")] = 9443,
) -> None:
    """Make the server's side of a federation, and an invitation for its groups.

    Run it on the server, because DIR/flwr-home contains the absolute path of DIR. Then give every
    group DIR/invitation.json; each makes its own node from it with `pluralllm deploy join`.

    Examples:

      pluralllm deploy init /opt/pluralllm --server flower.example.org --questionnaire questions

      pluralllm deploy init trial --server 127.0.0.1 --questionnaire questions
    """
    from pluralllm_app.deploy.creation import initialise

    describe(initialise(directory, server, port, questionnaire))


deploy_app.command("join")(join_command)
deploy_app.command("admit")(admit_command)
deploy_app.command("policy")(policy_command)
deploy_app.command("peers")(peers_command)


@deploy_app.command("register")
def register_command(
    directory: DirectoryArgument,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Name of a group. Repeat for more; default: all."),
    ] = None,
) -> None:
    """Make the nodes' public keys known to the running SuperLink, which refuses all others.

    Run it on the server. Nodes that are registered already are left as they are. The exit status
    is 1 if a node could not be registered; the others are registered all the same.
    """
    from pluralllm_app.deploy.groups import read_groups
    from pluralllm_app.errors import UserError

    groups = read_groups(directory)
    from pluralllm_app.deploy.control import connect  # it takes Flower to import

    chosen = {slug_of(name, groups, directory) for name in group or groups.values()}
    failures = []
    with connect(directory) as control:
        registered = control.nodes_by_key()
        for slug in (slug for slug in groups if slug in chosen):
            try:
                node = registered.get(control.key(slug))
                outcome = (
                    f"is registered already, as node {node.id}"
                    if node
                    else f"registered as node {control.register(slug)}"
                )
            except UserError as error:
                failures.append(f"{groups[slug]}: {error}")
            else:
                say(f"{groups[slug]}: {outcome}")
    if failures:
        raise UserError("\n".join(["not registered:", *failures]))


@deploy_app.command("run", cls=SettingsCommand)
def run_command(
    directory: DirectoryArgument,
    config: ConfigOption = None,
    setting: SettingOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory to write; default: DIR/server/runs/<time>-seed<seed>."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run directory to go on with, with its own settings."),
    ] = None,
) -> None:
    """Train a predictor over the groups' nodes; the exit status is 1 unless the run is completed.

    Run it on the server, as the user who started the SuperLink. It has the settings of `pluralllm
    run`, and waits for every group's node. Ctrl-C ends this command, but not the run.

    Examples:

      pluralllm deploy run trial -c 'rounds=2'

      pluralllm deploy run /opt/pluralllm --config conf/paper.toml

      pluralllm deploy run /opt/pluralllm --resume /opt/pluralllm/server/runs/first
    """
    from pluralllm_app.deploy.groups import read_groups

    console = Terminal()
    read_groups(directory)  # a mistyped directory is told at once
    with starting(console):
        from pluralllm_app.deploy.submit import submit

    submit(directory, config, setting or [], out, resume, console)


deploy_app.command("reward")(reward_command)


@deploy_app.command("remove")
def remove_command(
    directory: DirectoryArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Name of a group.")],
) -> None:
    """Shut out a group's node: unregister its key, and forget the group.

    Run it on the server. The SuperLink will never accept the key again.
    """
    from pluralllm_app.deploy.groups import read_groups, remove_group

    groups = read_groups(directory)
    slug = slug_of(group, groups, directory)
    from pluralllm_app.deploy.control import connect  # it takes Flower to import

    with connect(directory) as control:
        registered = control.nodes_by_key()
        own = control.by_group(registered).get(slug)
        # Also those of keys that the group had before.
        nodes = [node for node in registered.values() if node == own or node.name == slug]
        for node in nodes:
            control.unregister(node)
            say(f"{groups[slug]}: node {node.id} is unregistered")
    remove_group(directory, slug)
    say(
        f"{groups[slug]}: the group is removed from {directory}"
        + ("" if nodes else ", no node is registered by its key or name")
    )


@deploy_app.command("roles")
def roles_command(directory: DirectoryArgument, evaluation_groups: EvaluationGroups = None) -> None:
    """Register which groups never train; all others train.

    Run it on the server. A run refuses a node that says of itself what is not registered. A
    deployment made by an earlier version needs this once.
    """
    from pluralllm_app.deploy.groups import read_groups, set_roles

    groups = read_groups(directory)
    never = {slug_of(name, groups, directory) for name in evaluation_groups or []}
    for member in set_roles(directory, never).values():
        say(f"{member.name}: {'trains' if member.role == 'train' else 'never trains'}")


@deploy_app.command("renew")
def renew_command(
    directory: DirectoryArgument,
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS name or IP address of the server. Repeat for more; default: those of the old "
            "certificate. Nodes still call the one in their start.sh, new ones the first."
        ),
    ] = None,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority",
            help="Also make a new authority, if its key is lost. Each node then needs its ca.crt.",
        ),
    ] = False,
) -> None:
    """Make a new certificate for the server.

    Run it on the server, with the authority's key in DIR/ca/ca.key. Then the nodes trust the new
    certificate without any change.
    """
    from pluralllm_app.deploy.renewal import renew

    made = renew(directory, server or [], new_authority)
    say(f"server: {validity(made.certificate)}")
    say("Next: start the SuperLink again.")
    if new_authority:
        say(
            f"The authority is new: copy {directory.resolve()}/server/ca.crt over ca.crt of each "
            "node, and start the nodes again."
        )


@deploy_app.command("status")
def status_command(directory: DirectoryArgument) -> None:
    """Show which groups are connected; the exit status is 1 unless all of them are.

    It also tells which nodes the last run refused, and why.

    Run it on the server. A node is online while it reports to the SuperLink, about every 20
    seconds. One that was killed counts as online for up to a minute, and then as offline.
    """
    from pluralllm_app.deploy.groups import read_groups, read_registered
    from pluralllm_app.deploy.layout import CONNECTION
    from pluralllm_app.errors import UserError
    from pluralllm_app.federation.registration import check_roles

    groups = read_groups(directory)
    try:
        check_roles(read_registered(directory), directory)
    except UserError as error:
        say(str(error))
    from pluralllm_app.deploy.control import connect  # it takes Flower to import
    from pluralllm_app.deploy.status import Runs, certificate_notice, refusals, status_table

    if notice := certificate_notice(directory / "server" / "server.crt"):
        say(notice)
    with connect(directory) as control:
        registered = control.nodes_by_key()
        nodes = control.by_group(registered)
    ids = {node.id for node in nodes.values()}
    others = [node for node in registered.values() if node.id not in ids]
    runs = Runs.read(directory / "server" / "runs")
    Terminal().print(status_table(runs, groups, nodes, others))
    for line in [*refusals(runs.last), *runs.damaged]:
        say(line)
    if others:
        home = shlex.quote(str(directory.resolve() / "flwr-home"))
        unregister = f"FLWR_HOME={home} flwr supernode unregister NODE_ID {CONNECTION}"
        say(f"shut out a node of no group with: {unregister}")
    online = sum(node.status == "online" for node in nodes.values())
    Terminal().print(f"{online} of {len(groups)} groups online", highlight=False)
    if online < len(groups):
        raise typer.Exit(1)


@deploy_app.command("check-certificate", hidden=True)
def check_certificate_command(
    file: Annotated[Path, typer.Argument(help="Certificate of the authority.")],
) -> None:
    """Check that a file holds the certificate of an authority; start.sh calls this."""
    import ssl

    from pluralllm_app.errors import UserError

    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise UserError(
            f"{file} is no certificate ({error}): copy it from where it was made"
        ) from error


@deploy_app.command("node-config", hidden=True)
def node_config_command(
    group: Annotated[str, typer.Argument(help="Name of the group, as a text of TOML.")],
    site: Annotated[Path, typer.Argument(help="Directory of its site.")],
) -> None:
    """Check the site of a group's node, and print its node config; start.sh calls this."""
    from pluralllm_app.deploy.scripts import toml_text
    from pluralllm_app.errors import UserError
    from pluralllm_app.survey.site import Site

    try:
        name = tomllib.loads(f"group = {group}")["group"]
    except ValueError as error:
        raise UserError(f"the group's name in start.sh is no text of TOML: {error}") from error
    path = Site.open(site, group=name).survey.path
    config = {"group": name, "site": str(path)}
    if device := os.environ.get("PLURALLLM_DEVICE"):
        config["device"] = device
    print(" ".join(f"{key}={toml_text(text)}" for key, text in config.items()))
