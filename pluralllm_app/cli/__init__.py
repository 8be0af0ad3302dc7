"""The `pluralllm` command."""

from pluralllm_app.cli.main import main

__all__ = ["main"]
