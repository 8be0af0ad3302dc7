"""The help of the commands names what there is."""

import pytest
from typer.testing import CliRunner

from pluralllm_app.cli.main import app
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.federation.strategies import STRATEGIES
from pluralllm_app.learning.budgets import BUDGETS


@pytest.mark.parametrize(
    ("command", "names"), [("run", STRATEGIES), ("compare", METHODS), ("centralized", BUDGETS)]
)
def test_the_help_of_a_command_names_every_choice(command: str, names: dict[str, object]) -> None:
    text = CliRunner(env={"COLUMNS": "100"}).invoke(app, [command, "--help"]).output
    assert [name for name in names if name not in text] == []
