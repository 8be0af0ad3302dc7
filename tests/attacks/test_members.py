"""What a member with a key of its own tries against the others, on real processes."""

import hashlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from pluralllm_app import client_app
from pluralllm_app.deploy.control import connect
from pluralllm_app.federation.flower_compat import identify_process, key_bytes
from pluralllm_app.federation.messages import ARRAYS
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.attacks.conftest import Row
from tests.conftest import TINY, make_survey, tiny_config
from tests.support.deployment import Deployment, Process, command
from tests.support.local_grid import LocalGrid
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.attack

GROUPS = ("Alder", "Birch", "Cedar", "Dogwood")
CONFIG: dict[str, Scalar] = TINY | {"start-timeout": PATIENCE, "round-timeout": PATIENCE}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    path = tmp_path_factory.mktemp("survey") / "tiny"
    return make_survey(path, train=GROUPS[:3], evaluation=GROUPS[3:])


@pytest.fixture(scope="module")
def deployment(
    survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """All nodes are online. Alder's and Birch's have each other's key; Dogwood is said to train."""
    path = tmp_path_factory.mktemp("deployment") / "there"
    with Deployment(path, survey, GROUPS) as deployment:
        alder, birch = (deployment.node_dir(group) / "node.key" for group in GROUPS[:2])
        mine, other = alder.read_bytes(), birch.read_bytes()
        alder.write_bytes(other)
        birch.write_bytes(mine)
        deployment.start_all()
        yield deployment


def run(deployment: Deployment, name: str, settings: dict[str, Scalar]) -> int:
    """Submit a run to its end; returns the exit status."""
    return deployment.deploy_run(name, CONFIG | settings).wait(PATIENCE)


def test_false_claims_are_refused_by_name_and_shown(deployment: Deployment, row: Row) -> None:
    assert command("roles", deployment.dir).exit_code == 0  # as of this, Dogwood is to train
    assert run(deployment, "claims", {"min-train-groups": 1}) == 1
    told = deployment.log("claims").replace("\n", " ")
    status = command("status", deployment.dir).output
    for own, other in (("Alder", "Birch"), ("Birch", "Alder")):
        fault = f"says that it is group '{other}', and its key is registered"
        assert f"node of group '{own}' {fault}" in told
        assert f"{own}: refused in the last run: its node {fault}" in status
    fault = "says that its role is 'evaluation', and 'train' is registered"
    assert f"node of group 'Dogwood' {fault}" in told
    assert f"Dogwood: refused in the last run: its node {fault}" in status
    back = command("roles", deployment.dir, "--evaluation-groups", "Dogwood")
    assert "Dogwood: never trains" in back.output
    row(
        "two nodes with each other's key",
        before="accepted without a word",
        after="refused by name, shown by status",
    )
    row(
        "a node claims another role than is registered",
        before="accepted, trains",
        after="refused by name, shown by status",
    )


def attacker(deployment: Deployment, group: str) -> FleetHttpClient:
    """A client of the Fleet API that signs as a group's node."""
    key = load_ssh_private_key((deployment.node_dir(group) / "node.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    client = FleetHttpClient.from_server_address(
        f"127.0.0.1:{deployment.port}",
        False,
        (deployment.dir / "server" / "ca.crt").read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )
    return client


def push(client: FleetHttpClient, caller: int, message: Message) -> PushMessagesResponse:
    """Push a message as the node `caller`."""
    message.metadata.__dict__["_message_id"] = message.object_id
    request = PushMessagesRequest(
        node=Node(node_id=caller),
        messages_list=[message_to_proto(remove_content_from_message(message))],
        message_object_trees=[get_object_tree(message)],
    )
    return client.PushMessages(request)


def test_the_others_train_and_no_node_reaches_them(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    """Cedar's key pushes a train message to Dogwood while a run without Alder and Birch goes on."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    out = deployment.run_dir("attacked")
    settings: dict[str, Scalar] = {"min-train-groups": 1, "expected-nodes": 2, "rounds": 3}
    process = deployment.deploy_run("attacked", CONFIG | settings)
    wait_until(lambda: (out / "rounds.jsonl").exists() or process.poll() is not None)
    with connect(deployment.dir) as control:
        nodes = control.by_group(control.nodes_by_key())
    own, victim = nodes["cedar"].id, nodes["dogwood"].id
    found = re.search(r"Run (\d+) in", deployment.log("attacked"))
    assert found, deployment.log("attacked")
    identify_process()
    with attacker(deployment, "Cedar") as client:
        for source, reply_to, destination in (
            (SUPERLINK_NODE_ID, "", victim),
            (own, "", victim),
            (victim, "a" * 64, SUPERLINK_NODE_ID),
        ):
            message = Message(RecordDict(), dst_node_id=destination, message_type="train")
            message.metadata.__dict__["_run_id"] = int(found[1])
            message.metadata.__dict__["_src_node_id"] = source
            message.metadata.__dict__["_reply_to_message_id"] = reply_to
            with pytest.raises(httpx.HTTPStatusError) as refused:
                push(client, own, message)
            assert refused.value.response.status_code == 403
            assert "its own replies alone" in refused.value.response.text
            with pytest.raises(httpx.HTTPStatusError) as refused:
                push(client, victim, message)  # another's id, which the key does not fit
            assert refused.value.response.status_code == 401
    assert process.wait(PATIENCE) == 0, deployment.log("attacked")
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "completed"
    assert [entry["group"] for entry in record["roster"]] == ["Cedar", "Dogwood"]
    assert set(record["refused"]) == {"Alder", "Birch"}
    row(
        "a node claims another group's name while a run begins",
        before="stops the run, or takes the place of a node that is away",
        after="refused, the run completes with the others",
    )
    row(
        "a node pushes a train message to another node",
        before="delivered as the server's, trained",
        after="403; the run completes",
    )


def first_weights(survey: PreparedSurvey, place: Path) -> ObjectTree:
    """The objects of the weights that a run begins with, as whoever has its settings can tell."""
    config = tiny_config(survey, place) | {"rounds": 1}
    grid = LocalGrid(client_app.app, config, nodes=len(GROUPS))
    run_federation(grid, Settings.from_config(config), config)
    contents = (message.content for message in grid.sent)
    return get_object_tree(next(each[ARRAYS] for each in contents if ARRAYS in each))


def with_other_parts(objects: ObjectTree) -> list[ObjectTree]:
    """These objects, each of which contains another one than in truth."""
    other = ObjectTree(object_id=hashlib.sha256(objects.object_id.encode()).hexdigest())
    below = [each for child in objects.children for each in with_other_parts(child)]
    return [ObjectTree(object_id=objects.object_id, children=[other]), *below]


def wait_for(look: Callable[[], Any], process: Process) -> Any:
    """Wait until a look finds something, which is returned, while a process goes on."""
    found: list[Any] = []

    def seen() -> bool:
        found[:] = [look()]
        return bool(found[0]) or process.poll() is not None

    wait_until(seen)
    assert found[0], "the run ended before"
    return found[0]


def test_a_node_names_what_the_server_is_about_to_send(
    deployment: Deployment,
    survey: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
) -> None:
    """It takes the place of Alder's node, and says so in the reply that tells who it is."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    weights = first_weights(survey, tmp_path / "told")
    deployment.end_node("Alder", signal.SIGTERM)
    identify_process()
    with attacker(deployment, "Alder") as client:
        key = load_ssh_private_key((deployment.node_dir("Alder") / "node.key").read_bytes(), None)
        public = key_bytes(key.public_key())
        entering = ActivateNodeRequest(public_key=public, heartbeat_interval=600)
        node = Node(node_id=client.ActivateNode(entering).node_id)
        settings: dict[str, Scalar] = {"min-train-groups": 1, "expected-nodes": 2, "rounds": 1}
        process = deployment.deploy_run("named", CONFIG | settings)
        asked = wait_for(
            lambda: client.PullMessages(PullMessagesRequest(node=node)).messages_list, process
        )
        query = message_from_proto(asked[0])
        reply = Message(RecordDict(), reply_to=query)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = get_object_tree(reply)
        objects.children.extend(with_other_parts(weights))
        parts = get_all_nested_objects(reply)
        taken = client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[objects],
            )
        )
        own = {"node": node, "run_id": query.metadata.run_id}
        for object_id, part in parts.items():
            client.PushObject(
                PushObjectRequest(
                    **own,
                    session_id=taken.session_id,
                    object_id=object_id,
                    object_content=part.deflate(),
                )
            )
        # These are the names of what the server sends, else nothing was tried.
        wanted = PullObjectRequest(**own, object_id=weights.object_id)
        wait_for(lambda: client.PullObject(wanted).object_available, process)
    assert process.wait(PATIENCE) == 0, deployment.log("named")
    record = json.loads((deployment.run_dir("named") / "run.json").read_text())
    assert [entry["group"] for entry in record["roster"]] == ["Cedar", "Dogwood"]
    row(
        "a node names parts of the server's next message, with others in them",
        before="the server could not send it, the run ended for all",
        after="sent all the same, the run completes with the others",
    )
