"""The engine that is this process."""

import pytest

from pluralllm_app.engines.base import Outcome
from pluralllm_app.engines.in_process import InProcess
from pluralllm_app.errors import UserError
from pluralllm_app.federation import rounds
from pluralllm_app.records.reader import read_run
from pluralllm_app.settings import Scalar, Settings

Config = dict[str, Scalar]


def test_a_run_completes(config: Config) -> None:
    with InProcess(config) as engine:
        outcome = engine.wait()
        outcome.check()
        assert engine.poll() is outcome  # it is not run again
    assert outcome == Outcome("completed")
    run = read_run(Settings.from_config(config).path("out"))
    assert run is not None
    assert run.status == "completed"


def test_what_the_user_can_mend_is_the_outcome(config: Config) -> None:
    with InProcess(config | {"min-train-groups": 4}) as engine:
        outcome = engine.wait()
    assert outcome.status == "failed"
    with pytest.raises(UserError, match="too few train groups"):
        outcome.check()


def test_another_error_keeps_its_traceback(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rounds, "build_roster", broken)
    with InProcess(config) as engine, pytest.raises(ZeroDivisionError):
        engine.wait()
