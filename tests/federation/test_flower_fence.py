"""Who calls the SuperLink, and what a node may push to it: Flower's handlers, without a network."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from flwr.app import Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.exceptions import HTTPException

from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.federation.flower_compat import give_id, identify_process, key_bytes
from pluralllm_app.federation.flower_fence import (
    claimed_key,
    fence_fleet,
    has_signed,
    most_objects,
)
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from tests.support.local_runs import Config

ATTACKER, VICTIM = 7, 8


class State:
    """Keeps what Flower stores."""

    def __init__(self) -> None:
        self.stored: list[Message] = []

    def get_run_status(self, runs: set[int]) -> dict[int, Any]:
        return {run: SimpleNamespace(status="running", sub_status="") for run in runs}

    def start_session(self, run_id: int) -> str:
        return "session"

    def store_message_and_object_tree(
        self, message: Message, tree: ObjectTree, session: str
    ) -> tuple[bool, list[str]]:
        self.stored.append(message)
        return True, []

    object_store = None

    def store_traffic(self, run_id: int, **_: int) -> None:
        pass

    def add_clientapp_runtime(self, run_id: int, runtime: float) -> None:
        pass


def pushed(source: int, reply_to: str, destination: int, times: int = 1) -> PushMessagesRequest:
    """What the attacker pushes: a message with this source, a reply or not."""
    identify_process()
    message = Message(RecordDict(), dst_node_id=destination, message_type=MessageType.TRAIN)
    give_id(message)
    message.metadata.__dict__["_src_node_id"] = source
    message.metadata.__dict__["_reply_to_message_id"] = reply_to
    return PushMessagesRequest(
        node=Node(node_id=ATTACKER),
        messages_list=[message_to_proto(message)] * times,
        message_object_trees=[ObjectTree(object_id="x")] * times,
    )


INJECTED = pushed(SUPERLINK_NODE_ID, "", VICTIM)
ANOTHERS = pushed(VICTIM, "message of the victim", SUPERLINK_NODE_ID)
OWN = pushed(ATTACKER, "message of the attacker", SUPERLINK_NODE_ID)


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's handlers as they are without a fence."""
    for name in ("pull_messages", "push_messages"):
        own = inspect.unwrap(getattr(fleet_handlers, name))
        monkeypatch.setattr(fleet_handlers, name, own)
    return fleet_handlers


@pytest.mark.parametrize("request_", [INJECTED, ANOTHERS])
def test_what_flower_takes_the_fence_refuses(handlers: Any, request_: PushMessagesRequest) -> None:
    state = State()
    handlers.push_messages(request=request_, state=state)
    assert len(state.stored) == 1
    fence_fleet()
    with pytest.raises(HTTPException, match="a node may push its own replies alone") as refused:
        router.fleet_push_messages(request_, state)
    assert refused.value.status_code == 403
    assert len(state.stored) == 1


def test_a_node_pushes_its_own_replies(handlers: Any) -> None:
    state = State()
    fence_fleet()
    router.fleet_push_messages(OWN, state)
    assert [each.metadata.src_node_id for each in state.stored] == [ATTACKER]


@pytest.mark.parametrize("times", [0, 2])
def test_one_reply_at_a_time(handlers: Any, times: int) -> None:
    fence_fleet()
    with pytest.raises(HTTPException, match=f"{times} messages at once"):
        router.fleet_push_messages(pushed(ATTACKER, "its own", SUPERLINK_NODE_ID, times), State())


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_duration_is_none_below_zero(handlers: Any, seconds: float) -> None:
    fence_fleet()
    request = PushMessagesRequest()
    request.CopyFrom(OWN)
    request.clientapp_runtime_list.append(seconds)
    with pytest.raises(HTTPException, match="a duration that is none"):
        router.fleet_push_messages(request, State())


def tree(objects: int) -> ObjectTree:
    """A message of so many objects."""
    return ObjectTree(object_id="x", children=[ObjectTree(object_id="y")] * (objects - 1))


@pytest.mark.parametrize(("sent", "most"), [(0, 100), (3, 124)])
def test_a_reply_names_no_more_objects_than_it_can_have(
    handlers: Any, monkeypatch: pytest.MonkeyPatch, sent: int, most: int
) -> None:
    """8 times those of the message that the node got, and 100 more: 8 * 3 + 100 = 124."""
    message = PullMessagesResponse(message_object_trees=[tree(sent)] if sent else [])
    monkeypatch.setattr(handlers, "pull_messages", lambda **_: message)
    fence_fleet()
    state = State()
    asking = PullMessagesRequest(node=Node(node_id=ATTACKER))
    assert router.fleet_pull_messages(asking, state) == message
    request = PushMessagesRequest()
    request.CopyFrom(OWN)
    for objects in (most, most + 1):
        request.message_object_trees[0].CopyFrom(tree(objects))
        if objects == most:
            router.fleet_push_messages(request, state)
            continue
        with pytest.raises(HTTPException, match=f"a reply of more than {most} objects"):
            router.fleet_push_messages(request, state)
    assert len(state.stored) == 1


class CountingGrid(InProcessGrid):
    """Notes how many objects each message has, and its reply."""

    def __init__(self, config: dict[str, Scalar]) -> None:
        super().__init__(client_app.app, config, nodes=6)
        self.counts: list[tuple[int, int]] = []

    def ask(self, message: Message) -> Message | None:
        trees = [get_object_tree(message)]
        reply = super().ask(message)
        assert reply is not None
        trees.append(get_object_tree(reply))
        sent, named = (sum(1 for _ in iterate_object_tree(tree)) for tree in trees)
        self.counts.append((sent, named))
        return reply


@pytest.mark.slow
@pytest.mark.parametrize("privacy", ["none", "secure-sum"])
@pytest.mark.parametrize("learner", [{}, {"prior": "factors"}, {"predictor": "factors"}], ids=str)
def test_what_honest_nodes_send_is_far_below(
    of_five: Config, learner: Config, privacy: str
) -> None:
    config = of_five | {"rounds": 2, "privacy": privacy} | learner
    grid = CountingGrid(config)
    run_federation(grid, Settings.from_config(config), config)
    assert grid.counts
    for sent, named in grid.counts:
        assert named <= most_objects(sent) / 2


def signed(key: EllipticCurvePrivateKey, **changed: str) -> dict[str, Any]:
    """The scope of a request that Flower's client signs with a key, with some headers changed."""
    request = httpx.Request("POST", "https://there/v1/fleet/push-object")
    context = ProtobufRequestContext("/x/Y", PushMessagesRequest(), request)
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(
        context, lambda context: httpx.Response(200)
    )
    headers = dict(request.headers) | changed
    registered = {key_bytes(KEY.public_key()): ATTACKER}
    state = SimpleNamespace(get_node_id_by_public_key=registered.get)
    factory = SimpleNamespace(state=lambda: state)
    return {
        "type": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory)),
    }


KEY, OTHER = (generate_private_key(SECP384R1()) for _ in range(2))


def test_the_headers_alone_say_which_key_has_signed() -> None:
    for key, registered in ((KEY, True), (OTHER, False)):
        scope = signed(key)
        assert claimed_key(scope) == key_bytes(key.public_key())
        assert has_signed(scope, claimed_key(scope)) is registered


def test_another_key_or_clock_or_no_signature_is_refused() -> None:
    names = [name for name in dict(signed(KEY)["headers"]) if name.startswith(b"flwr")]
    assert len(names) >= 3
    other = dict(signed(OTHER)["headers"])
    for name in names:
        for value in ("", "x", "\udcff", other[name].decode()):
            scope = signed(KEY)
            scope["headers"] = [
                (each, value.encode("utf-8", "replace") if each == name else own)
                for each, own in scope["headers"]
            ]
            with pytest.raises(HTTPException) as refused:
                has_signed(scope, claimed_key(scope))
            assert refused.value.status_code == 401
    with pytest.raises(HTTPException):
        has_signed(signed(OTHER), key_bytes(KEY.public_key()))
