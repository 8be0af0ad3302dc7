"""What the SuperLink takes of objects, the parts of messages, before it has their content.

Flower keeps the objects of all messages in one store, under the hashes of their contents. Whoever
sends a message first names its objects and which of them contain which, and then pushes each.
Flower believes who names an object first, and refuses with an error who says later that it
contains others; so a node that can tell what the server or another node is about to send could
keep it from being sent. And it shows the server a reply as soon as it is named: the server then
waits for its objects, for up to two hours, and for no other reply meanwhile.

Here, what an object contains is what the server says, or else what was said last, until its content
is there and says it; and a reply is shown once all of its objects are there.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextvars import ContextVar
from functools import wraps
from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.inflatable.inflatable_object import (
    get_object_children_ids_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.linkstate_models import MessageRes
from flwr.supercore.state.schema.objectstore_models import ObjectChild, StoredObject
from flwr.superlink.servicer.runtime import runtime_handlers
from sqlalchemy import bindparam, delete, insert, or_, select, update
from sqlalchemy.orm import Session

_server_speaks = ContextVar("_server_speaks", default=False)

# Statements that are asked for each object or look: to build one takes longer than to run it.
_CHILDREN = select(ObjectChild.child_id).where(ObjectChild.parent_id == bindparam("parent"))
_REPLY = select(MessageRes.message_id).where(
    MessageRes.reply_to_message_id == bindparam("message"), MessageRes.delivered_at == ""
)
_OF_ROOT = (
    select(ObjectChild.child_id)
    .where(ObjectChild.parent_id == bindparam("root"))
    .cte(recursive=True)
)
_BELOW = _OF_ROOT.union(  # all objects in an object, at any depth, each once
    select(ObjectChild.child_id).join(_OF_ROOT, ObjectChild.parent_id == _OF_ROOT.c.child_id)
)
_ITSELF = select(_BELOW.c.child_id).where(_BELOW.c.child_id == bindparam("root"))
_PARTS_TO_COME = (
    select(StoredObject.object_id)
    .where(
        or_(
            StoredObject.object_id == bindparam("root"),
            StoredObject.object_id.in_(select(_BELOW.c.child_id)),
        ),
        StoredObject.is_available == 0,
    )
    .limit(1)
)


def guard_objects() -> None:
    """Let no node reserve an object in the store of this process, or make it wait for one."""
    preregister, put = SqlObjectStore.preregister, SqlObjectStore.put
    pull, push = runtime_handlers.pull_messages, runtime_handlers.push_messages
    forget = SqlObjectStore.delete_objects_in_run
    # Objects that the server has named in each run, until they are there or the run is cleared.
    of_server: defaultdict[int, set[str]] = defaultdict(set)

    @wraps(push)
    def push_as_server(
        request: PushAppMessagesRequest, state: SqlLinkState, task: Task
    ) -> PushAppMessagesResponse:
        token = _server_speaks.set(True)
        try:
            return push(request=request, state=state, task=task)
        finally:
            _server_speaks.reset(token)

    @wraps(preregister)
    def preregister_again(self: SqlObjectStore, run_id: int, object_tree: ObjectTree) -> list[str]:
        trees = [*iterate_object_tree(object_tree)]  # children before what contains them
        with self._mutation_session() as session:
            missing = _missing(session, {tree.object_id for tree in trees})
            if not _server_speaks.get():  # where they differ, the node is refused
                missing -= set().union(*of_server.values())
            for tree in trees:
                said = {child.object_id for child in tree.children}
                if tree.object_id in missing and _children(session, tree.object_id) != said:
                    for child in tree.children:
                        preregister(self, run_id, child)
                    _contain(session, tree.object_id, said)
            named = preregister(self, run_id, object_tree)
            if _server_speaks.get():
                of_server[run_id].update(named)
            return named

    @wraps(put)
    def put_truly(self: SqlObjectStore, object_id: str, object_content: bytes) -> None:
        with self.session() as session:
            put(self, object_id, object_content)  # from here on nobody else writes
            said = {*get_object_children_ids_from_object_content(object_content)}
            if _children(session, object_id) != said:
                with self._mutation_session():
                    _contain(session, object_id, said)
        for named in [*of_server.values()]:  # a copy: other threads name objects meanwhile
            named.discard(object_id)

    @wraps(forget)
    def forget_run(self: SqlObjectStore, run_id: int) -> None:
        forget(self, run_id)
        of_server.pop(run_id, None)

    @wraps(pull)
    def pull_whole(
        request: PullAppMessagesRequest, state: SqlLinkState, task: Task
    ) -> PullAppMessagesResponse:
        unfinished = _unfinished(state, request.message_ids)
        asked = type(request)()
        asked.CopyFrom(request)
        asked.message_ids[:] = [each for each in request.message_ids if each not in unfinished]
        return pull(request=asked, state=state, task=task)

    store: Any = SqlObjectStore
    handlers: Any = runtime_handlers
    store.preregister, store.put = preregister_again, put_truly
    store.delete_objects_in_run = forget_run
    handlers.pull_messages, handlers.push_messages = pull_whole, push_as_server


def _missing(session: Session, object_ids: set[str]) -> set[str]:
    """Of these objects, those that were named and whose content is not there."""
    rows = select(StoredObject.object_id).where(
        StoredObject.object_id.in_(object_ids), StoredObject.is_available == 0
    )
    return {*session.scalars(rows)}


def _children(session: Session, object_id: str) -> set[str]:
    return {*session.scalars(_CHILDREN, {"parent": object_id})}


def _contain(session: Session, parent: str, children: set[str]) -> None:
    """Note that an object contains these others and no more.

    Raises:
        ValueError: one of them was not named, or contains the object.
    """
    before = _children(session, parent)
    for child in before - children:
        row = (ObjectChild.parent_id == parent, ObjectChild.child_id == child)
        session.execute(delete(ObjectChild).where(*row))
    for child in children - before:
        named = select(StoredObject.object_id).where(StoredObject.object_id == child)
        if session.scalar(named) is None:
            raise ValueError(f"object {parent} contains {child}, which was not named")
        session.execute(insert(ObjectChild).values(parent_id=parent, child_id=child))
    for changed, by in ((before - children, -1), (children - before, 1)):
        for child in changed:
            row_of_child = update(StoredObject).where(StoredObject.object_id == child)
            session.execute(row_of_child.values(ref_count=StoredObject.ref_count + by))
    if session.scalar(_ITSELF, {"root": parent}) is not None:
        raise ValueError(f"object {parent} would contain itself")


def _unfinished(state: SqlLinkState, message_ids: Iterable[str]) -> set[str]:
    """Of these messages, those whose reply is named and not all there."""
    with state.session() as session:
        return {
            message
            for message in message_ids
            if (root := session.scalar(_REPLY, {"message": message})) is not None
            and session.scalar(_PARTS_TO_COME, {"root": root}) is not None
        }
