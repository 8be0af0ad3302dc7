"""Keys, certificates, ports and signatures that are not good end a process, and say why.

The texts are those of the symptoms in docs/deployment.md.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.date import now
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode import node_auth_http_interceptor
from flwr.supernode.fleet_http_client import FleetHttpClient

from pluralllm_app.deploy import keys
from pluralllm_app.deploy.control import connect
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.deployment import Deployment, free_port
from tests.support.forwarder import Forwarder
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.engine

GROUPS = ("Alder", "Birch", "Cedar", "Dogwood")


@pytest.fixture(scope="module")
def deployment(
    tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Its SuperLink runs, and knows all keys; its nodes do not run."""
    with Deployment(tmp_path_factory.mktemp("bad-input") / "there", tiny_survey, GROUPS) as there:
        there.start_superlink()
        there.register()
        yield there


def what_ends(deployment: Deployment, name: str, directory: Path) -> str:
    """What the start script in a directory printed before it ended with an error."""
    assert deployment.start(name, [directory / "start.sh"]).wait(PATIENCE) == 1
    return deployment.log(name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("server.key", None, "cannot read {}/server.key, which"),
        ("server.crt", None, "cannot read {}/server.crt, which"),
        ("ca.crt", b"damaged", "{}/ca.crt is no certificate ("),
        ("server.key", b"damaged", "[SSL] PEM lib"),
        ("server.crt", b"damaged", "[SSL] PEM lib"),
        ("server.key", keys.make_authority().key_pem, "key values mismatch"),
    ],
)
def test_a_superlink_needs_its_own_key_and_certificate(
    deployment: Deployment,
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    server = (
        initialise(tmp_path / "new", ["127.0.0.1"], free_port(), tiny_survey.path).path / "server"
    )
    (server / name).unlink()
    if content:
        (server / name).write_bytes(content)
        (server / name).chmod(0o600)
    printed = what_ends(deployment, tmp_path.name, server)
    assert message.format(server) in printed


def test_an_expired_certificate_is_refused(
    deployment: Deployment,
    tiny_survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "SERVER_DAYS", 0)
    server = initialise(tmp_path / "old", ["127.0.0.1"], 9443, tiny_survey.path).path / "server"
    shutil.copy(server / "ca.crt", deployment.node_dir("Alder"))
    deployment.forward("Alder", Forwarder(deployment.port, server).port)
    printed = what_ends(deployment, "alder", deployment.node_dir("Alder"))
    assert "CERTIFICATE_VERIFY_FAILED" in printed
    assert "certificate has expired" in printed


def test_a_damaged_key_is_refused(deployment: Deployment) -> None:
    (deployment.node_dir("Birch") / "node.key").write_text("damaged")
    printed = what_ends(deployment, "birch", deployment.node_dir("Birch"))
    assert "Exit Code: 302\nUnable to parse the private key" in printed


def test_a_port_in_use_is_named(deployment: Deployment) -> None:
    printed = what_ends(deployment, "again", deployment.dir / "server")
    assert f"127.0.0.1, port {deployment.port}: Address already in use" in printed
    assert deployment.online() == 0  # the first one goes on


def own_key(deployment: Deployment, group: str) -> ec.EllipticCurvePrivateKey:
    key = load_ssh_private_key((deployment.node_dir(group) / "node.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@contextmanager
def fleet(
    deployment: Deployment, signed_with: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey
) -> Iterator[FleetHttpClient]:
    """What a SuperNode has to call the SuperLink with."""
    with FleetHttpClient.from_server_address(
        f"127.0.0.1:{deployment.port}",
        insecure=False,
        root_certificates=(deployment.dir / "server" / "ca.crt").read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            node_auth_http_interceptor.NodeAuthHttpInterceptor(signed_with, key),
        ],
    ) as client:
        yield client


def activation(key: ec.EllipticCurvePublicKey) -> ActivateNodeRequest:
    return ActivateNodeRequest(public_key=public_key_to_bytes(key), heartbeat_interval=30)


def test_a_known_key_needs_a_signature_of_its_own(deployment: Deployment) -> None:
    key = own_key(deployment, "Cedar").public_key()
    with (
        fleet(deployment, own_key(deployment, "Dogwood"), key) as client,
        pytest.raises(httpx.HTTPStatusError, match="401"),
    ):
        client.ActivateNode(activation(key))


# The SuperLink takes a time up to 5 seconds ahead and 5 minutes behind; a request takes a while.
@pytest.mark.parametrize(
    ("seconds", "accepted"), [(60, False), (2, True), (-240, True), (-310, False)]
)
def test_a_signature_is_of_the_present(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, seconds: int, accepted: bool
) -> None:
    key = own_key(deployment, "Cedar")
    monkeypatch.setattr(
        node_auth_http_interceptor, "now", lambda: now() + timedelta(seconds=seconds)
    )
    with fleet(deployment, key, key.public_key()) as client:
        if not accepted:
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                client.ActivateNode(activation(key.public_key()))
            return
        node = client.ActivateNode(activation(key.public_key())).node_id
        client.DeactivateNode(DeactivateNodeRequest(node_id=node))


def test_an_unregistered_nodes_key_is_of_no_more_use(deployment: Deployment) -> None:
    with connect(deployment.dir) as control:
        control.unregister(control.by_group(control.nodes_by_key())["dogwood"])
    node = deployment.start("dogwood", [deployment.node_dir("Dogwood") / "start.sh"])
    wait_until(lambda: "does not let this node in" in deployment.log("dogwood"))
    deployment.kill(node, signal.SIGTERM)
    assert "SuperNode ID" not in deployment.log("dogwood")
