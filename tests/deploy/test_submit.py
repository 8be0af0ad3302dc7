"""`pluralllm deploy run`, against a SuperLink that runs the app in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
from flwr.app import Message
from flwr.proto.run_pb2 import RunStatus
from typer.testing import Result

from pluralllm_app import client_app
from pluralllm_app.deploy import submit
from pluralllm_app.engines.base import Ended, Outcome
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.errors import UserError
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.records.reader import read_run
from pluralllm_app.records.resume import reopen_record
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import write_questionnaire
from tests.conftest import TINY
from tests.support.control_api import SuperLink, deploy

Serve = Callable[[SuperLink, dict[str, Scalar]], None]


def completes(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    """Run the app in this process, as if each partition of a survey were a node."""
    grid = InProcessGrid(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    superlink.status = RunStatus(status="finished", sub_status="completed")


def fails(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    details = "ServerApp failed with exception: [no] node ever came"
    superlink.status = RunStatus(status="finished", sub_status="failed", details=details)


def is_killed(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    """The app's process is killed in the second round, and the SuperLink goes on."""
    is_cut_off(superlink, config)
    details = "No heartbeat received from the task"
    superlink.status = RunStatus(status="finished", sub_status="failed", details=details)


def stops(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    superlink.status = RunStatus(status="finished", sub_status="stopped")


def dies(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    superlink.status = None


def completes_and_dies(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    completes(superlink, config)
    superlink.status = None


def is_cut_off(superlink: SuperLink, config: dict[str, Scalar]) -> None:
    """The SuperLink dies with the second round's reply."""

    class Dying(InProcessGrid):
        def ask(self, message: Message) -> Message | None:
            if message.content.config_records.get("config", {}).get("round") == 2:
                raise SystemExit
            return super().ask(message)

    with pytest.raises(SystemExit):
        run_federation(Dying(client_app.app, config, nodes=5), Settings.from_config(config), config)
    reopen_record(Path(str(config["out"])))  # kill -9 leaves no word there
    superlink.status = None


@pytest.fixture
def run(superlink: SuperLink, path: Path, tiny_survey: PreparedSurvey) -> Callable[..., Result]:
    """`deploy run` of a tiny run; the argument says what becomes of it."""

    def run(serve: Serve, *arguments: str | Path) -> Result:
        def start(config: dict[str, Scalar]) -> None:
            superlink.submitted = config
            serve(superlink, config | {"survey": str(tiny_survey.path)})

        superlink.start = start
        return deploy("run", path, *arguments)

    return run


OVERRIDES = " ".join(f"{key}={value}" for key, value in TINY.items())


def test_a_run_is_submitted_and_shown(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    deploy("register", path, "--group", "Alder", "--group", "Birch")
    superlink.infos[0].status = "online"
    done = run(completes, "-c", OVERRIDES)
    assert done.exit_code == 0, (done.output, done.exception)
    [out] = (path / "server/runs").iterdir()
    for line in (
        "Birch: its node is not connected",
        "Élan 中/..: its node is not registered",
        "Groups of this run: Alder, Birch, Élan 中/..",
        "1 of 3 nodes are online",
        "Waiting for the nodes ...",
        "5 groups are there. Round 0 scores the predictor before any training",
        f"Run 7 in {out}",
        "Groups never trained on: mean ",
        f"The trained predictor: {out}/model",
    ):
        assert line in done.output
    assert superlink.submitted["expected-nodes"] == 3
    assert superlink.submitted["survey"] == ""
    assert {key: superlink.submitted[key] for key in TINY} == TINY
    info = read_run(out)
    assert info is not None
    assert info.status == "completed"


def test_a_run_that_failed_has_an_exit_status(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(fails, "--out", out, "-c", OVERRIDES + " expected-nodes=1")
    assert "0 of 1 nodes are online" in done.output
    assert isinstance(done.exception, UserError)
    first, *rest = str(done.exception).splitlines()
    assert first == "the run failed: [no] node ever came"
    assert "now Birch: its node is not registered, see `pluralllm deploy register`" in rest
    assert not out.exists()
    done = run(dies, "--out", out, "-c", OVERRIDES)  # nothing is in it
    assert "no SuperLink answers" in str(done.exception)
    assert "begin it again, with another --out" in done.exception.__notes__[0]
    assert str(run(stops, "--out", out, "-c", OVERRIDES).exception).startswith(
        "the run was stopped\n"
    )
    out.mkdir()
    (out / "file").touch()
    done = run(completes, "--out", out, "-c", OVERRIDES)
    assert "is not empty" in str(done.exception)


@pytest.mark.slow
def test_the_record_tells_where_the_superlink_does_not(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run(completes_and_dies, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 0, (done.output, done.exception)


def test_one_lost_answer_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(submit, "time", clock)
    answers: list[Ended | Literal[""] | None] = ["", None, "", None, None, None, None, "completed"]

    def outcome(run_id: int) -> Outcome | None:
        assert run_id == 7
        if (answer := answers.pop(0)) is None:
            raise httpx.ReadTimeout("lost")
        return Outcome(answer) if answer else None

    control: Any = SimpleNamespace(outcome=outcome, start_run=lambda files, run_config: 7)
    with submit.Submitted(control, {}) as submitted:
        for _ in range(6):
            clock.now += submit.POLL_SECONDS
            assert submitted.poll() is None
        clock.now += submit.POLL_SECONDS
        with pytest.raises(httpx.ReadTimeout):  # 20 seconds after the last answer
            submitted.poll()


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out, whole = tmp_path / "a run", tmp_path / "whole"
    done = run(is_cut_off, "--out", out, "-c", OVERRIDES)
    assert "no SuperLink answers" in str(done.exception)
    assert f"pluralllm deploy run {path} --resume '{out}'" in done.exception.__notes__[0]
    for wrong in (["--out", out], ["-c", "rounds=3"], ["--config", out]):
        done = run(completes, "--resume", out, *wrong)
        assert "give it alone" in str(done.exception)
    deploy("add", path, "Later")  # it waits for those that it began with
    done = run(completes, "--resume", out)
    assert done.exit_code == 0, (done.output, done.exception)
    assert superlink.submitted["expected-nodes"] == 0
    assert "Alder: its node is not registered" in done.output
    assert "Later" not in done.output
    assert "0 of 5 nodes are online" in done.output
    assert run(completes, "--out", whole, "-c", OVERRIDES).exit_code == 0
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    done = run(completes, "--resume", out)
    assert "is completed: there is nothing to resume" in str(done.exception)


@pytest.mark.slow
def test_a_run_whose_process_was_killed_says_why_and_how_to_go_on(
    path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run(is_killed, "--out", tmp_path / "run", "-c", OVERRIDES)
    said = str(done.exception)
    assert said.startswith("the run failed: the server's process of the run was killed, or its")
    assert f"mended: pluralllm deploy run {path} --resume {tmp_path / 'run'}\n" in said
    info = read_run(tmp_path / "run")
    assert info is not None
    assert info.status == "failed"
    assert "was killed" in str(info.error)
    assert run(completes, "--resume", tmp_path / "run").exit_code == 0


def test_an_interrupted_command_leaves_the_run(
    superlink: SuperLink, path: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    def interrupt(superlink: SuperLink, config: dict[str, Scalar]) -> None:
        superlink.status = KeyboardInterrupt()

    done = run(interrupt, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 130
    flwr = f"FLWR_HOME={path / 'flwr-home'} flwr"
    assert f"The run goes on, see {tmp_path}/run. To end it: {flwr} stop 7 pluralllm" in done.output

    def interrupt_earlier(superlink: SuperLink, config: dict[str, Scalar]) -> None:
        raise KeyboardInterrupt

    done = run(interrupt_earlier, "--out", tmp_path / "run", "-c", OVERRIDES)
    assert done.exit_code == 130
    assert f"To see whether it goes on: {flwr} ls pluralllm" in done.output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("strategi=fedavg", "did you mean 'strategy'"),
        ("rounds=0", "rounds"),
        ("strategy=fedprox fedprox.mu=-1", "fedprox.mu"),
        ("survey='/x'", "each node has its own site"),
        ("expected-nodes=4", "the deployment has 3 groups"),
    ],
)
def test_wrong_settings_are_not_submitted(
    path: Path, run: Callable[..., Result], setting: str, message: str
) -> None:
    done = run(completes, "-c", setting)
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert not (path / "server/runs").exists()


@pytest.mark.slow
def test_a_server_that_needs_the_questions_is_given_them(
    superlink: SuperLink, path: Path, tiny_survey: PreparedSurvey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)  # where a deployment has a short name
    command = ["run", path.name, "-c", f"{OVERRIDES} predictor=factors"]
    place = path / "server" / "questionnaire"
    shutil.rmtree(place)  # as `init` of earlier versions left it
    refused = deploy(*command)
    assert isinstance(refused.exception, UserError), refused.output
    assert f"pluralllm questionnaire SURVEY --out {place}" in str(refused.exception)
    write_questionnaire(tiny_survey, place)

    def start(config: dict[str, Scalar]) -> None:
        superlink.submitted = config
        completes(superlink, config | {"survey": str(tiny_survey.path)})

    superlink.start = start
    done = deploy(*command)
    assert done.exit_code == 0, (done.output, done.exception)
    assert superlink.submitted["questionnaire"] == str(place)
    assert "work out its answers" in done.output
