"""What a node may push to the SuperLink: its own replies, and nothing else.

Flower's Fleet API takes from any node with a key a message that is no reply, with the SuperLink as
its source, and delivers it to another node as if the server had sent it. It also takes the word of
a node for whose reply a message is. Flower has checked by then that the caller's key belongs to the
node id of the request.
"""

import math
from functools import wraps
from logging import WARNING
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
    from flwr.server.superlink.linkstate import LinkState


def fence_fleet() -> None:
    """Let the Fleet API of this process refuse what is no reply of the node that pushes it."""
    from flwr.superlink.servicer.fleet import fleet_handlers

    push = fleet_handlers.push_messages

    @wraps(push)
    def push_messages(request: "PushMessagesRequest", state: "LinkState") -> "PushMessagesResponse":
        check_reply(request)
        return push(request=request, state=state)

    fleet_handlers.push_messages = push_messages


def check_reply(request: "PushMessagesRequest") -> None:
    """Raise HTTPException 403 unless a request of a node pushes one reply of that node.

    That the message it replies to was sent to that node, Flower compares with what it keeps.
    """
    caller = request.node.node_id
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise _refusal(caller, f"{len(request.messages_list)} messages at once")
    metadata = request.messages_list[0].metadata
    if not metadata.reply_to_message_id:
        raise _refusal(caller, f"a message to node {metadata.dst_node_id}, and no reply")
    if metadata.src_node_id != caller:
        raise _refusal(caller, f"a reply in the name of node {metadata.src_node_id}")
    if not all(math.isfinite(each) and each >= 0 for each in request.clientapp_runtime_list):
        raise _refusal(caller, "a duration that is none")


def _refusal(caller: int, what: str) -> HTTPException:
    from flwr.supercore import log

    log(WARNING, "Refused: node %s pushes %s", caller, what)
    return HTTPException(403, f"a node may push its own replies alone, and not {what}")
