"""What `pluralllm deploy status` shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from pluralllm_app.deploy.keys import read_certificate
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_compat import Node
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.schema import RunInfo

_NOTICE = timedelta(days=30)


@dataclass(frozen=True)
class Runs:
    """The runs of a deployment, as far as their records can be read."""

    found: Sequence[RunInfo]  # by when they started
    damaged: Sequence[str]  # a line for each that cannot be read

    @classmethod
    def read(cls, path: Path) -> "Runs":
        """Read those in a directory of run directories."""
        found, damaged = [], []
        for place in sorted(path.glob("*")):
            try:
                run = read_run(place)
            except UserError as error:
                damaged.append(f"left out: {error}")
            else:
                found += [run] if run else []
        return cls(sorted(found, key=lambda run: run.started), damaged)

    @property
    def last(self) -> RunInfo | None:
        """The one that started last."""
        return self.found[-1] if self.found else None


def status_table(
    runs: Runs, groups: Mapping[str, str], nodes: Mapping[str, Node], others: Sequence[Node]
) -> Table:
    """One row per group: its node, when that was there, and the survey it had in the last run.

    Nodes that are of no group follow.

    Args:
        runs: of the deployment.
        groups: names by slug.
        nodes: registrations by slug.
        others: registrations of no group.
    """
    # The last that got as far as its roster.
    run = next((run for run in reversed(runs.found) if run.roster), None)
    roster = {entry.group for entry in (run and run.roster) or []}
    table = Table()
    table.add_column("group", overflow="fold")
    for column in ("node id", "state (UTC)", "survey"):
        table.add_column(column, no_wrap=True)
    for slug, name in groups.items():
        used = run.survey.fingerprint[:12] if run and run.survey and name in roster else "-"
        table.add_row(escape(name), *_cells(nodes.get(slug)), used)
    if run and run.survey:
        table.caption = escape(f"survey: fingerprint in the last run, of {run.survey.name}")
        table.caption_justify = "left"
    for node in others:
        table.add_row(f"[red]no group[/] ({escape(node.name)})", *_cells(node), "-")
    return table


def refusals(last: RunInfo | None) -> list[str]:
    """A line for each node that the last run refused."""
    return [
        f"{group}: refused in the last run: its node {fault}"
        for group, fault in (last.refused if last else {}).items()
    ]


def certificate_notice(file: Path) -> str | None:
    """What to say where the server's certificate has expired, or will before long.

    Raises:
        UserError: it cannot be read.
    """
    end = read_certificate(file).not_valid_after_utc
    now = datetime.now(UTC)
    if end > now + _NOTICE:
        return None
    return (
        f"{file} {'expires' if end > now else 'expired'} on {end:%Y-%m-%d}: make a new one with "
        "`pluralllm deploy renew`"
    )


def _cells(node: Node | None) -> tuple[str, str]:
    if node is None:
        return "-", "[red]not registered[/]"
    if node.time is None:
        return str(node.id), "[blue]never connected[/]"
    if node.status == "online":
        return str(node.id), f"[green]online[/], seen {node.time:%H:%M:%S}"
    return str(node.id), f"[yellow]offline[/] since {node.time:%m-%d %H:%M:%S}"
