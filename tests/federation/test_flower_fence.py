"""What a node may push to the SuperLink, by Flower's own handlers and without a network."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers
from starlette.exceptions import HTTPException

from pluralllm_app.federation.flower_compat import give_id, identify_process
from pluralllm_app.federation.flower_fence import fence_fleet

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
    own = inspect.unwrap(fleet_handlers.push_messages)
    monkeypatch.setattr(fleet_handlers, "push_messages", own)
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
