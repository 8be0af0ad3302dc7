"""The table of `pluralllm deploy status`."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pluralllm_app.deploy.control import Node
from pluralllm_app.record import read_run

_COLOURS = {"online": "green", "offline": "yellow", "registered": "blue"}


def status_table(runs: Path, groups: Mapping[str, str], nodes: Mapping[str, Node]) -> Table:
    """One row per group: its node, its state, and the survey it had in the last run.

    Args:
        runs: directory of run directories.
        groups: names by slug.
        nodes: registrations by slug.
    """
    run = _last_run(runs)
    roster = {entry["group"] for entry in run.get("roster") or []}
    survey = run.get("survey") or {}
    table = Table()
    table.add_column("group", overflow="fold")
    for column in ("node id", "state", "since (UTC)"):
        table.add_column(column, no_wrap=True)
    table.add_column("survey, last run")
    for slug, name in groups.items():
        used = f"{survey['name']} {survey['fingerprint'][:12]}" if name in roster else "-"
        if node := nodes.get(slug):
            state = f"[{_COLOURS[node.status]}]{node.status}[/]"
            row = (str(node.id), state, f"{datetime.fromisoformat(node.since):%m-%d %H:%M:%S}")
        else:
            row = ("-", "[red]not registered[/]", "-")
        table.add_row(escape(name), *row, escape(used))
    return table


def _last_run(runs: Path) -> dict[str, Any]:
    """run.json of the run that started last and got as far as its roster; {} where none did."""
    found = [run for directory in runs.glob("*") if (run := read_run(directory)).get("roster")]
    return max(found, key=lambda run: str(run["started"]), default={})
