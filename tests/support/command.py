"""The `pluralllm` command as a user runs it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer
from click.testing import CliRunner as Runner
from click.testing import Result
from typer.main import get_command

from pluralllm_app.settings import Scalar
from tests.conftest import ROOT, TINY
from tests.support.waiting import PATIENCE

BIN = Path(sys.executable).parent
TINY_RUN = TINY | {"round-timeout": PATIENCE, "start-timeout": PATIENCE}
_command = cache(get_command)


class CliRunner(Runner):
    """Typer's runner of commands in this process, which makes the command once, not each time."""

    def invoke(self, app: typer.Typer, *args: Any, **options: Any) -> Result:  # type: ignore[override]
        return super().invoke(_command(app), *args, **options)


def overrides(values: dict[str, Scalar]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def pluralllm(
    *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [BIN / "pluralllm", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
        env=env,
        check=False,
    )


def write_settings(config: Mapping[str, Scalar], path: Path) -> Path:
    """The file of settings for --config."""
    file = path / "tiny.toml"
    kept = {key: value for key, value in config.items() if key not in ("survey", "out")}
    file.write_text("\n".join(f'"{key}" = {json.dumps(value)}' for key, value in kept.items()))
    return file
