"""Who calls the SuperLink, and what a node may push to it: its own replies, and nothing else.

A reply may not name more objects than it can have, since each takes the SuperLink a millisecond.

Flower looks at a node's signature once it has the whole body; `has_signed` needs the headers alone.

Flower's Fleet API takes from any node with a key a message that is no reply, with the SuperLink as
its source, and delivers it to another node as if the server had sent it. It also takes the word of
a node for whose reply a message is. Flower has checked by then that the caller's key belongs to the
node id of the request.
"""

import math
from base64 import b64decode
from functools import wraps
from itertools import islice
from logging import WARNING
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from pluralllm_app.federation.bounds import OBJECTS_MORE, OBJECTS_TIMES

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import (
        PullMessagesRequest,
        PullMessagesResponse,
        PushMessagesRequest,
        PushMessagesResponse,
    )
    from flwr.server.superlink.linkstate import LinkState
    from flwr.supercore.object_store import ObjectStore


def fence_fleet() -> None:
    """Let the Fleet API of this process refuse what is no reply of the node that pushes it."""
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.superlink.servicer.fleet import fleet_handlers

    pull, push = fleet_handlers.pull_messages, fleet_handlers.push_messages
    sent: dict[int, int] = {}  # objects of the message that each node got last

    @wraps(pull)
    def pull_messages(
        request: "PullMessagesRequest", state: "LinkState", store: "ObjectStore"
    ) -> "PullMessagesResponse":
        response = pull(request=request, state=state, store=store)
        for tree in response.message_object_trees:  # there is one at most
            sent[request.node.node_id] = sum(1 for _ in iterate_object_tree(tree))
        return response

    @wraps(push)
    def push_messages(request: "PushMessagesRequest", state: "LinkState") -> "PushMessagesResponse":
        check_reply(request, most_objects(sent.get(request.node.node_id, 0)))
        return push(request=request, state=state)

    fleet_handlers.pull_messages, fleet_handlers.push_messages = pull_messages, push_messages


def most_objects(sent: int) -> int:
    """How many objects a reply may name, to a message that names so many.

    All arrays of a message are one object, which travels in pieces, and each piece is an object
    too. A reply has more of them than its message where some of the message's pieces are equal, as
    pieces of zeros are, and go once; and where arrays are masked, which doubles their bytes.
    """
    return OBJECTS_TIMES * sent + OBJECTS_MORE


def claimed_key(scope: Scope) -> bytes:
    """The public key that the headers of a request name; empty where they name none."""
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

    try:
        return b64decode(Headers(scope=scope).get(FLEET_HTTP_PUBLIC_KEY_HEADER, ""), validate=True)
    except (ValueError, UnicodeError):
        return b""


def has_signed(scope: Scope, key: bytes) -> bool:
    """Check that a key has signed the headers of a request; returns whether it is registered.

    It asks the SuperLink's database.

    Raises:
        HTTPException: 401, it has not, or its clock is wrong.
    """
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.superlink.dependencies.linkstate import get_linkstate
    from flwr.superlink.routers.fleet.node_auth import authenticate_node

    request = Request({**scope, "state": {}})
    # Flower's own check, of a body that claims the same key.
    request.state.protobuf_request = ActivateNodeRequest(public_key=key)
    authenticate_node(request)
    return get_linkstate(request).get_node_id_by_public_key(key) is not None


def check_reply(request: "PushMessagesRequest", most: int) -> None:
    """Raise HTTPException 403 unless a request of a node pushes one reply of that node.

    That the message it replies to was sent to that node, Flower compares with what it keeps.

    Args:
        request: of a node.
        most: objects that the reply may name.
    """
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    caller = request.node.node_id
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise _refusal(caller, f"{len(request.messages_list)} messages at once")
    metadata = request.messages_list[0].metadata
    if not metadata.reply_to_message_id:
        raise _refusal(caller, f"a message to node {metadata.dst_node_id}, and no reply")
    if metadata.src_node_id != caller:
        raise _refusal(caller, f"a reply in the name of node {metadata.src_node_id}")
    objects = iterate_object_tree(request.message_object_trees[0])
    if next(islice(objects, most, None), None) is not None:
        raise _refusal(caller, f"a reply of more than {most} objects")
    if not all(math.isfinite(each) and each >= 0 for each in request.clientapp_runtime_list):
        raise _refusal(caller, "a duration that is none")


def _refusal(caller: int, what: str) -> HTTPException:
    from flwr.supercore import log

    log(WARNING, "Refused: node %s pushes %s", caller, what)
    return HTTPException(403, f"a node may push its own replies alone, and not {what}")
