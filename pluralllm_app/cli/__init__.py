"""The `pluralllm` command."""

from pluralllm_app.cli import quiet  # noqa: F401 (before typer)
from pluralllm_app.cli.main import main

__all__ = ["main"]
