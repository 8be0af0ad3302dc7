"""Who is connected, and what is said where that cannot be found out."""

import contextlib
import socket
import ssl
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app.deploy import keys
from pluralllm_app.deploy.control import connect
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.status import Runs, certificate_notice, status_table
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_compat import Node
from pluralllm_app.records.schema import RecordedSurvey
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.deployment import deployed
from tests.support.runs import ROSTER, SURVEY, write_run


def test_the_table_tells_groups_nodes_and_the_last_survey(tmp_path: Path) -> None:
    def survey(fingerprint: str) -> RecordedSurvey:
        return replace(SURVEY, name="mine", fingerprint=fingerprint)

    groups = {"a": "[red]A", "b": "B", "c": "C"}
    nodes = {
        "a": Node(2**64 - 1, b"a", "online", "a", datetime(2026, 1, 2, 3, 4, 5)),
        "b": Node(7, b"b", "offline", "b", datetime(2026, 1, 2, 3, 4, 6)),
    }
    others = [Node(8, b"x", "registered", "[red]x", None)]
    roster = [replace(ROSTER[0], group=group) for group in ("[red]A", "C")]
    write_run(tmp_path / "old", started="2026-01-01", roster=roster, survey=survey("1" * 64))
    write_run(tmp_path / "an", started="2026-01-02", roster=roster, survey=survey("2" * 64))
    write_run(tmp_path / "failed-early", started="2026-01-03", roster=None)
    (tmp_path / "no-run").mkdir()

    console = Console(width=90, record=True)
    (tmp_path / "cut-off").mkdir()
    (tmp_path / "cut-off" / "run.json").write_text('{"schema": 1, "stat')
    runs = Runs.read(tmp_path)
    [damaged] = runs.damaged
    assert damaged.startswith(f"left out: {tmp_path}/cut-off/run.json is damaged: ")
    assert runs.last
    assert runs.last.started == "2026-01-03"
    console.print(status_table(runs, groups, nodes, others))
    text = console.export_text()
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["[red]A", str(2**64 - 1), "online, seen 03:04:05", "2" * 12],
        ["B", "7", "offline since 01-02 03:04:06", "-"],
        ["C", "-", "not registered", "2" * 12],
        ["no group ([red]x)", "8", "never connected", "-"],
    ]
    assert "in the last run, of mine" in text


def test_a_damaged_deployment_is_named(tmp_path: Path, tiny_survey: PreparedSurvey) -> None:
    path = deployed(tmp_path / "there", tiny_survey)
    (path / "server/nodes/a.pub").write_text("ssh-ed25519 AAAA x\n")
    with connect(path) as control, pytest.raises(UserError, match=r"public key .*a\.pub"):
        control.register("a")
    (path / "server/ca.crt").write_text("nothing")
    with pytest.raises(UserError, match=r"root certificate .*config\.toml names"), connect(path):
        pass
    (path / "flwr-home/config.toml").write_text("[superlink]\n")
    with pytest.raises(UserError, match=r"must have \[superlink\.pluralllm\]"), connect(path):
        pass


def test_an_expired_certificate_is_named(
    tmp_path: Path, tiny_survey: PreparedSurvey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SERVER_DAYS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        path = initialise(tmp_path / "there", ["127.0.0.1"], port, tiny_survey.path).path
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path / "server/server.crt", path / "server/server.key")

        def serve() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(ssl.SSLError):
                context.wrap_socket(peer, server_side=True)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(UserError, match="certificate has expired"), connect(path) as control:
            control.by_group(control.nodes_by_key())
        server.join()


@pytest.mark.parametrize(
    ("days", "said"), [(825, None), (32, None), (30, "expires on 20"), (0, "expired on 20")]
)
def test_a_certificate_that_ends_soon_is_told(
    tmp_path: Path,
    tiny_survey: PreparedSurvey,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    said: str | None,
) -> None:
    monkeypatch.setattr(keys, "SERVER_DAYS", days)  # from yesterday
    path = deployed(tmp_path / "there", tiny_survey)
    notice = certificate_notice(path / "server/server.crt")
    if said is None:
        assert notice is None
    else:
        assert said in str(notice)
        assert "`pluralllm deploy renew`" in str(notice)
    (path / "server/server.crt").write_text("damaged")
    with pytest.raises(UserError, match="cannot read the certificate"):
        certificate_notice(path / "server/server.crt")
