"""Federations in this process: their nodes are there at once, and several tests look at one run."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pluralllm_app.federation import roster
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey, tiny_config
from tests.support.local_runs import Config, Finished, run
from tests.support.secure_runs import FIVE, SECURE


@pytest.fixture(autouse=True)
def _no_more_nodes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "SETTLE_SECONDS", 0.0)


@pytest.fixture(scope="session")
def finished(tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The config of a tiny run with some changes that is over; a test leaves its files as they are.

    Each run is made once, when it is first asked for: before anything about runs is patched.
    """
    made: dict[str, Config] = {}

    def finish(changes: Mapping[str, Scalar]) -> Config:
        key = repr(sorted(changes.items()))
        if key not in made:
            config = tiny_config(tiny_survey, tmp_path_factory.mktemp("finished") / "run")
            run(config | changes)
            made[key] = config | changes
        return made[key]

    return finish


@pytest.fixture(scope="session")
def five(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey of five train groups, so that secure sums do without one."""
    path = tmp_path_factory.mktemp("five") / "survey"
    return make_survey(path, train=FIVE, evaluation=("Dogwood",))


@pytest.fixture
def of_five(five: PreparedSurvey, tmp_path: Path) -> Config:
    return tiny_config(five, tmp_path / "run") | SECURE
