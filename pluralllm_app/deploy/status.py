"""What `pluralllm deploy status` shows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from rich.markup import escape
from rich.table import Table

from pluralllm_app.deploy.control import Node
from pluralllm_app.errors import UserError
from pluralllm_app.record import read_run

_COLOURS = {"online": "green", "offline": "yellow", "registered": "blue"}
_NOTICE = timedelta(days=30)


def status_table(
    runs: Path, groups: Mapping[str, str], nodes: Mapping[str, Node], others: Sequence[Node]
) -> Table:
    """One row per group: its node, its state, and the survey it had in the last run.

    Nodes that are of no group follow.

    Args:
        runs: directory of run directories.
        groups: names by slug.
        nodes: registrations by slug.
        others: registrations of no group.
    """
    run = _last_run(runs)
    roster = {entry["group"] for entry in run.get("roster") or []}
    survey = run.get("survey") or {}
    table = Table()
    table.add_column("group", overflow="fold")
    for column in ("node id", "state", "last seen (UTC)"):
        table.add_column(column, no_wrap=True)
    table.add_column("survey, last run")
    for slug, name in groups.items():
        used = f"{survey['name']} {survey['fingerprint'][:12]}" if name in roster else "-"
        table.add_row(escape(name), *_cells(nodes.get(slug)), escape(used))
    for node in others:
        table.add_row(f"[red]no group[/] ({escape(node.name)})", *_cells(node), "-")
    return table


def certificate_notice(file: Path) -> str | None:
    """What to say where the server's certificate has expired, or will before long.

    Raises:
        UserError: it cannot be read.
    """
    try:
        end = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the certificate {file}: {error}") from error
    now = datetime.now(UTC)
    if end > now + _NOTICE:
        return None
    return (
        f"{file} {'expires' if end > now else 'expired'} on {end:%Y-%m-%d}: make a new one with "
        '`pluralllm deploy init` in another directory, see "Changing keys" in docs/deployment.md'
    )


def _cells(node: Node | None) -> tuple[str, str, str]:
    if node is None:
        return "-", "[red]not registered[/]", "-"
    seen = f"{node.seen:%m-%d %H:%M:%S}" if node.seen else "never"
    return str(node.id), f"[{_COLOURS[node.status]}]{node.status}[/]", seen


def _last_run(runs: Path) -> dict[str, Any]:
    """run.json of the run that started last and got as far as its roster; {} where none did."""
    found = [run for directory in runs.glob("*") if (run := read_run(directory)).get("roster")]
    return max(found, key=lambda run: str(run["started"]), default={})
