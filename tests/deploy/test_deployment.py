"""A federation of real processes, from `deploy init` to a finished run, with TLS and node keys."""

import json
import shutil
import signal
import socket
import ssl
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from pluralllm_app.deploy.control import connect
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.supernode import RETRY_SECONDS
from pluralllm_app.errors import UserError
from pluralllm_app.federation.audit_log import AUDIT_LOG
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TINY, make_survey
from tests.support.deployment import (
    Deployment,
    Process,
    add_node,
    command,
    free_port,
    model_weights,
)
from tests.support.forwarder import Forwarder
from tests.support.traces import traces
from tests.support.waiting import PATIENCE, wait_until
from tests.support.weights import saved_vector

pytestmark = pytest.mark.engine

GROUPS = ("Alder", "Birch", "Élan 中/..")
# Round 0, whose scores tell whether any node works at all, and the last are evaluated.
CONFIG: dict[str, Scalar] = TINY | {"evaluate-every": 2, "expected-nodes": 3}
PATIENT: dict[str, Scalar] = {"round-timeout": PATIENCE, "start-timeout": PATIENCE}


def addresses() -> list[str]:
    """This machine's IPv4 addresses but loopback."""
    interfaces = psutil.net_if_addrs().values()
    found = [entry for entries in interfaces for entry in entries]
    return [
        entry.address
        for entry in found
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """One of these groups alone, so that a run in one process has them as well."""
    path = tmp_path_factory.mktemp("survey") / "tiny"
    return make_survey(path, train=GROUPS[:2], evaluation=GROUPS[2:])


@pytest.fixture(scope="module")
def deployment(
    survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    path = tmp_path_factory.mktemp("deployment") / "there"
    with Deployment(path, survey, GROUPS, ["127.0.0.1", *addresses()]) as deployment:
        for group in GROUPS:  # with the run's draws, so that a run in one process has them as well
            policy = 'draws = "run-seed"\nsecure-sum = "none"\n'
            (deployment.node_dir(group) / POLICY).write_text(policy)
        deployment.start_superlink()
        yield deployment
    assert deployment.processes() == []


@pytest.fixture(scope="module")
def stranger(deployment: Deployment, survey: PreparedSurvey) -> Path:
    """Another federation's directory, whose nodes call our SuperLink."""
    port = free_port()
    groups = ["Alder", "Birch"]
    path = initialise(deployment.path / "stranger", ["127.0.0.1"], port, survey.path).path
    for group, name in zip(groups, ("unregistered", "misled"), strict=True):
        slug = add_node(path, survey, group)
        (path / "nodes" / slug).rename(path / "nodes" / name)
    ours = f"127.0.0.1:{deployment.port}"
    for file in [*path.glob("nodes/*/start.sh"), path / "flwr-home" / "config.toml"]:
        file.write_text(file.read_text().replace(f"127.0.0.1:{port}", ours))
    return path


def test_strangers_are_refused(deployment: Deployment, stranger: Path) -> None:
    def start(group: str) -> Process:
        return deployment.start(group, [stranger / "nodes" / group / "start.sh"])

    misled = start("misled")  # trusts another authority
    shutil.copy(deployment.dir / "server" / "ca.crt", stranger / "nodes" / "unregistered")
    unregistered = start("unregistered")
    assert misled.wait(PATIENCE) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in deployment.log("misled")
    wait_until(lambda: "does not let this node in" in deployment.log("unregistered"))
    time.sleep(2 * RETRY_SECONDS)  # it tries again, in vain
    assert unregistered.poll() is None
    assert "SuperNode ID" not in deployment.log("unregistered")
    with connect(deployment.dir) as control:
        assert control.by_group(control.nodes_by_key()) == {}
    deployment.kill(unregistered, signal.SIGTERM)


def test_the_port_speaks_tls_alone(deployment: Deployment) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"http://127.0.0.1:{deployment.port}/v1/fleet/pull-messages")


def test_nobody_pulls_messages_without_a_key(deployment: Deployment) -> None:
    context = ssl.create_default_context(cafile=str(deployment.dir / "server" / "ca.crt"))
    answer = httpx.post(
        f"https://127.0.0.1:{deployment.port}/v1/fleet/pull-messages",
        verify=context,
        headers={"content-type": "application/protobuf", "accept": "application/protobuf"},
    )
    assert answer.status_code == 401


@pytest.mark.skipif(not addresses(), reason="this machine has no address but loopback")
def test_runs_are_submitted_on_the_server_alone(deployment: Deployment) -> None:
    there = deployment.path / "elsewhere"
    (there / "flwr-home").mkdir(parents=True)
    config = (deployment.dir / "flwr-home" / "config.toml").read_text()
    (there / "flwr-home" / "config.toml").write_text(config.replace("127.0.0.1", addresses()[0]))
    with pytest.raises(UserError, match="only on its own machine"), connect(there) as control:
        control.by_group(control.nodes_by_key())


def test_what_keeps_a_command_from_the_superlink(deployment: Deployment, stranger: Path) -> None:
    for directory, message in (
        (stranger, "does not vouch for"),
        (deployment.path / "logs", "is not a deployment"),
    ):
        outcome = command("register", directory)
        assert isinstance(outcome.exception, UserError)
        assert message in str(outcome.exception)
    config = stranger / "flwr-home" / "config.toml"
    config.write_text(config.read_text().replace(f":{deployment.port}", f":{free_port()}"))
    outcome = command("status", stranger)
    assert "no SuperLink answers" in str(outcome.exception)
    outcome = command("register", deployment.dir, "--group", "Adler")
    assert "did you mean 'Alder'" in str(outcome.exception)


def search(survey: PreparedSurvey, places: Mapping[str, bytes]) -> None:
    """Nothing of the survey's questions and shares is in these bytes, by where they are from."""
    wanted = traces(survey)
    assert [
        (place, trace) for place, content in places.items() for trace in wanted if trace in content
    ] == []


def learn_factors(
    deployment: Deployment, survey: PreparedSurvey, overrides: str, tmp_path: Path
) -> None:
    """Runs whose server needs the survey's questions, and is given them without an answer."""
    submit = ["pluralllm", "deploy", "run", deployment.dir, "-c"]
    unquestioned = [*submit, f"{overrides} predictor=factors"]
    questionnaire = deployment.dir / "server" / "questionnaire"
    shutil.rmtree(questionnaire)  # as in a deployment that was made without one
    assert deployment.start("unquestioned", unquestioned).wait(PATIENCE) == 1
    assert f"pluralllm questionnaire SURVEY --out {questionnaire}" in deployment.log("unquestioned")
    write = ["pluralllm", "questionnaire", survey.path, "--out", questionnaire]
    assert deployment.start("questionnaire", write).wait(PATIENCE) == 0
    for setting in ("predictor", "prior"):  # of the latter's two rounds, one learns factors
        run = deployment.run_dir(setting)
        chosen = [*submit, f"{overrides} {setting}=factors", "--out", run]
        assert deployment.start(setting, chosen).wait(PATIENCE) == 0, deployment.log(setting)
        config = CONFIG | {setting: "factors", "questionnaire": str(questionnaire)}
        assert model_weights(run) == deployment.weights_without(config, tmp_path / setting)


@pytest.mark.story
def test_from_keys_to_a_finished_run(
    deployment: Deployment, survey: PreparedSurvey, tmp_path: Path
) -> None:
    assert "3 groups online" in command("status", deployment.dir).output
    registered = command("register", deployment.dir)
    assert registered.exit_code == 0, registered.output
    assert "Élan 中/..: registered as node " in registered.output
    again = command("register", deployment.dir, "--group", "Alder")
    assert "Alder: is registered already" in again.output
    assert "Birch" not in again.output
    status = command("status", deployment.dir)
    assert status.exit_code == 1
    assert "0 of 3 groups online" in status.output

    # What crosses the wire is kept, as it is inside TLS.
    server = deployment.dir / "server"
    wires = {group: Forwarder(deployment.port, server) for group in GROUPS}
    for group, wire in wires.items():
        deployment.forward(group, wire.port)
    nodes = [deployment.start_node(group) for group in GROUPS]
    deployment.wait_online(3)
    run = deployment.run_dir("run")
    overrides = " ".join(f"{key}={value}" for key, value in (CONFIG | PATIENT).items())
    assert deployment.deploy_run("run", CONFIG | PATIENT).wait(PATIENCE) == 0, deployment.log("run")
    assert "Groups never trained on: mean" in deployment.log("run")
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "completed"
    assert [entry["group"] for entry in record["roster"]] == sorted(GROUPS)

    trained = tomllib.loads(command("peers", deployment.dir).output)["peers"].items()
    for group in GROUPS:  # every node knows the keys of all groups that train, and its own
        known = tomllib.loads(command("peers", deployment.node_dir(group)).output)["peers"].items()
        assert trained <= known
        assert len(known - trained) == (group == GROUPS[2])

    status = command("status", deployment.dir)
    assert status.exit_code == 0, status.output
    assert status.output.count(record["survey"]["fingerprint"][:12]) == 3

    assert model_weights(run) == deployment.weights_without(CONFIG, tmp_path / "run")

    crossed = {group: b"\0".join(wire.streams) for group, wire in wires.items()}
    final = saved_vector(run / "model").numpy().tobytes()
    for group, content in crossed.items():
        assert group.encode() in content
        assert final in content
    written = [file for place in (run, deployment.logs) for file in place.rglob("*")]
    written += (server / "state").glob("superlink.db*")
    audits = [deployment.node_dir(group) / AUDIT_LOG for group in GROUPS]
    for audit in audits:
        noted = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
        assert noted[0]["message"] == "query"
        assert {line["code"] for line in noted} == {record["versions"]["code"]}
        assert {line["outcome"] for line in noted} == {"answered"}
        assert all(line["bytes_in"] and line["bytes_out"] for line in noted[1:])
        assert max(line["round"] or 0 for line in noted) == CONFIG["rounds"]
    written += audits
    search(survey, crossed | {str(file): file.read_bytes() for file in written if file.is_file()})

    refused = [
        "pluralllm",
        "deploy",
        "run",
        deployment.dir,
        "-c",
        overrides + " min-train-groups=3",
    ]
    assert deployment.start("refused", refused).wait(PATIENCE) == 1
    assert "min-train-groups" in deployment.log("refused")

    learn_factors(deployment, survey, overrides, tmp_path)

    removed = command("remove", deployment.dir, "Birch")
    assert "is unregistered" in removed.output
    assert "the group is removed" in removed.output
    assert "of 2 groups online" in command("status", deployment.dir).output
    assert nodes[1].wait(PATIENCE) is not None  # by itself

    for group, node in zip(GROUPS, nodes, strict=True):
        if group != "Birch":
            assert deployment.processes(group) != []
            deployment.kill(node)
    wait_until(lambda: not any(map(deployment.processes, GROUPS)))

    # The group comes back with another key, to a SuperLink with another certificate.
    site = deployment.node_dir("Birch") / "site"
    shutil.move(site, tmp_path)
    shutil.rmtree(deployment.node_dir("Birch"))
    given = deployment.dir / "invitation.json"
    again = ("--site", tmp_path / "site", "--out", deployment.node_dir("Birch"))
    assert command("join", given, *again).exit_code == 0
    admitted = command("admit", deployment.dir, deployment.node_dir("Birch") / "request.json")
    assert "Birch: registered as node " in admitted.output
    before = (server / "server.crt").read_bytes()
    assert command("renew", deployment.dir).exit_code == 0
    assert (server / "server.crt").read_bytes() != before
    deployment.kill(deployment.superlink, signal.SIGTERM)
    deployment.start_superlink()
    deployment.start_node("Birch")

    def back() -> bool:
        with connect(deployment.dir) as control:
            return control.by_group(control.nodes_by_key())["birch"].status == "online"

    wait_until(back)
