"""A Weights & Biases server that dies in the middle of a run costs seconds, and is told at the end.

Its own client would try for a week, also when the process ends.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.settings import Scalar
from tests.support.command import pluralllm, write_settings
from tests.support.json_server import JsonHandler

pytestmark = pytest.mark.slow
BUCKET = {
    "id": "b1",
    "name": "r1",
    "displayName": "r",
    "description": None,
    "config": "{}",
    "sweepName": None,
    "historyLineCount": 0,
    "project": {"id": "p", "name": "pluralllm", "entity": {"id": "e", "name": "us"}},
}
DATA = {
    "viewer": {"id": "v", "entity": "us", "username": "u", "flags": "{}", "teams": {"edges": []}},
    "upsertBucket": {"bucket": BUCKET, "inserted": True},
    "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []},
    "model": None,
    "createRunFiles": {"files": []},
    **{kind: {"fields": []} for kind in ("QueryType", "MutationType", "ServerInfoType")},
}


class Server(JsonHandler):
    """As much of the API as a run needs; it dies when the first numbers are sent."""

    protocol_version = "HTTP/1.1"
    dead: threading.Event

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "file_stream" in self.path:
            self.dead.set()
            self.server.server_close()  # nobody listens any more
        self.answer({"data": DATA} if self.path.endswith("graphql") else {"limits": {}})

    def answer(self, content: Any) -> None:
        if self.dead.is_set():
            self.close_connection = True
            return
        super().answer(content)


def serve(server: ThreadingHTTPServer) -> None:
    with suppress(OSError, ValueError):  # it is closed while it serves
        server.serve_forever()


@pytest.fixture
def address() -> Iterator[str]:
    kind = type("Server", (Server,), {"dead": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        assert kind.dead.is_set()


def test_a_wandb_server_that_dies_in_the_middle_costs_no_round(
    config: dict[str, Scalar], tmp_path: Path, address: str
) -> None:
    environment = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path)}
    settings = write_settings(config | {"tracker": "wandb"}, tmp_path)
    arguments = ["--survey", config["survey"], "--config", settings, "--out", config["out"]]
    done = pluralllm("centralized", *arguments, cwd=tmp_path, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    out = Path(str(config["out"]))
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "completed"
    assert record["tracker_error"].startswith(f"no W&B server answers at {address}")
    assert f"`wandb sync {out}/wandb/run-" in record["tracker_error"]
    assert "The tracker did not get the whole run" in done.stdout
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 3
