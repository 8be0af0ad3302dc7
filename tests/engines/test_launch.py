"""A run that is stopped before it has begun."""

from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app.engines import simulation
from pluralllm_app.engines.launch import run
from pluralllm_app.records.writer import STATE
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY
from tests.support.command import overrides
from tests.support.runs import write_run


class Interrupted:
    """In place of a simulation: it is stopped before it has started."""

    def __init__(self, app: Path, config: object, resources: object, log: Path) -> None: ...

    def __enter__(self) -> None:
        raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None: ...


def test_it_says_what_the_server_can_read(
    tiny_survey: PreparedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "Simulation", Interrupted)
    for privacy in ("none", "secure-sum"):
        console = Console(record=True, width=300)
        chosen = {"predictor": "factors", "privacy": privacy, "train-groups-per-round": 0}
        settings, out = [overrides(TINY | chosen)], tmp_path / privacy
        with pytest.raises(KeyboardInterrupt):
            run(tiny_survey.path, None, settings, out, None, None, console)
        clear = "sums in the clear" in console.export_text()
        assert clear == (privacy == "none")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "nothing is kept"),
        ("running", "nothing is kept"),
        ("failed", "the run had failed before"),
        ("completed", "the run had completed before"),
        ("completed with its state", "the run had completed before"),
    ],
)
def test_a_run_stopped_before_its_first_round_leaves_nothing(
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: str | None,
    said: str,
) -> None:
    class InRun(Interrupted):
        def __init__(self, app: Path, config: object, resources: object, log: Path) -> None:
            log.write_text("Flower starts")
            (log.parent / "tensorboard").mkdir()
            if status:
                write_run(log.parent, status=status.split()[0])
            if status == "completed with its state":
                (log.parent / STATE).touch()

    monkeypatch.setattr(simulation, "Simulation", InRun)
    with pytest.raises(KeyboardInterrupt):
        run(
            *(tiny_survey.path, None, [overrides(TINY)], tmp_path / "run", None, None),
            Console(quiet=True),
        )
    assert said in " ".join(capsys.readouterr().err.split())
    kept = status not in (None, "running")
    assert (tmp_path / "run").exists() == kept
    assert (tmp_path / "run" / "run.json").exists() == kept
