"""Servers of trackers that are away, silent or die cost seconds at the start, and never a run."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.engines.preflight import preflight
from pluralllm_app.errors import SettingsError
from pluralllm_app.experiments.runs import run_centralized
from pluralllm_app.records import tracker_servers, trackers
from pluralllm_app.records.tracker_servers import check_server
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.json_server import JsonHandler

Config = dict[str, Scalar]
DEAD = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without keys, settings or variables of any tracker."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that takes calls and never answers, for which nobody waits long."""
    monkeypatch.setattr(tracker_servers, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class MLflowServer(JsonHandler):
    """As much of MLflow's API as a run needs; it keeps what it is told."""

    told: list[tuple[str, Any]]
    dies_at = 10**6  # requests

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if len(self.told) >= self.dies_at:
            self.connection.close()
            return
        self.told.append((self.path.rpartition("mlflow/")[2], content))
        run = {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}, "data": {}}
        self.answer({"experiment_id": "1", "run": run, "run_info": run["info"]})


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[MLflowServer]]:
    """An MLflow server that MLFLOW_TRACKING_URI names."""
    kind = type("Server", (MLflowServer,), {"told": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield kind
        server.shutdown()


def run(config: Config, tracker: str) -> dict[str, Any]:
    """Train with a tracker; returns run.json."""
    config |= {"tracker": tracker}
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.path("survey"))
    run_centralized(survey, settings, config, "equal-steps")
    found: dict[str, Any] = json.loads((settings.path("out") / "run.json").read_text())
    return found


def test_an_mlflow_server_that_is_away_is_named_at_the_start(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    remedy = "start it, or unset MLFLOW_TRACKING_URI to write below the run directory"
    message = rf"no MLflow server answers at {re.escape(DEAD)} \(.*\): {remedy}"
    with pytest.raises(SettingsError, match=message):
        preflight(Settings.from_config(config | {"tracker": "mlflow"}))
    with pytest.raises(SettingsError, match=message):  # as on the server of a deployment
        run(config, "mlflow")


def test_a_silent_mlflow_server_is_named_at_the_start(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    with pytest.raises(SettingsError, match=r"no MLflow server answers at .*timed out"):
        check_server("mlflow")


@pytest.mark.parametrize("where", ["", "file:///tmp/runs", "sqlite:///runs.db", "databricks"])
def test_what_is_no_web_server_is_not_called(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    check_server("mlflow")


def test_a_proxy_on_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(SettingsError) as raised:
        check_server("mlflow")
    assert "through the proxy http_proxy=http://127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.slow
def test_an_mlflow_server_is_told_each_round_at_once(
    config: Config, mlflow: type[MLflowServer]
) -> None:
    assert run(config, "mlflow")["status"] == "completed"
    batches = [content for call, content in mlflow.told if call == "runs/log-batch"]
    assert {param["key"]: param["value"] for param in batches[0]["params"]}["rounds"] == "2"
    steps = [{metric["step"] for metric in batch["metrics"]} for batch in batches[1:]]
    assert steps == [{0}, {1}, {2}]
    assert mlflow.told[-1][0] == "runs/update"


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [4, 5, 6])
def test_a_server_that_dies_in_the_middle_costs_no_round(
    config: Config, mlflow: type[MLflowServer], dies_at: int
) -> None:
    mlflow.dies_at = dies_at
    record = run(config, "mlflow")
    assert record["status"] == "completed"
    assert record["tracker_error"]


def test_a_tracker_that_hangs_is_waited_for_once(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Hanging:
        def log(self, *_: object) -> None:
            calls.append("log")
            threading.Event().wait()

        finish = log

    monkeypatch.setattr(
        "pluralllm_app.records.recording.open_tracker", lambda *arguments: Hanging()
    )
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 0.1)
    record = run(config, "none")
    assert record["status"] == "completed"
    assert record["tracker_error"] == "it did not answer within 0.1 s"
    assert calls == ["log"]


def test_without_a_key_offline_mode_is_named(config: Config) -> None:
    message = "no key for https://api.wandb.ai: run `wandb login`, or set WANDB_MODE=offline"
    with pytest.raises(SettingsError, match=message):
        preflight(Settings.from_config(config | {"tracker": "wandb"}))


@pytest.mark.parametrize("mode", ["offline", "disabled", "dryrun"])
def test_offline_needs_no_key(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    check_server("wandb")


@pytest.mark.parametrize("kept", ["variable", "netrc", "home"])
def test_a_wandb_server_that_is_away_is_named_at_the_start(
    kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", DEAD)
    if kept == "variable":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        file = tmp_path / ("keys" if kept == "netrc" else "home/.netrc")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"machine 127.0.0.1:9 login user password {'0' * 40}\n")
        if kept == "netrc":
            monkeypatch.setenv("NETRC", str(file))
    with pytest.raises(SettingsError, match=r"no W&B server answers .*set WANDB_MODE=offline"):
        check_server("wandb")
