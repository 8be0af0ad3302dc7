"""Objects that a node names before others send them, or names and never sends: Flower's store."""

import hashlib
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
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
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.linkstate_models import MessageRes
from flwr.superlink.servicer.runtime import runtime_handlers
from sqlalchemy import insert

from pluralllm_app.federation.flower_store import guard_objects

RUN = 7


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    """Objects that there are only the names of."""
    return ObjectTree(object_id=hashlib.sha256(name.encode()).hexdigest(), children=children)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store that holds nothing: to make its tables takes half a second."""
    path = tmp_path_factory.mktemp("store") / "superlink.db"
    SqlObjectStore(str(path)).initialize()
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlObjectStore:
    """Flower's store as it is without a guard."""
    for name in ("preregister", "put", "delete_objects_in_run"):
        monkeypatch.setattr(SqlObjectStore, name, inspect.unwrap(getattr(SqlObjectStore, name)))
    for name in ("pull_messages", "push_messages"):
        own = inspect.unwrap(getattr(runtime_handlers, name))
        monkeypatch.setattr(runtime_handlers, name, own)
    made = SqlObjectStore(shutil.copy(empty, tmp_path))
    made.initialize()
    return made


@pytest.fixture
def sent() -> RecordDict:
    """What anybody can tell who has the settings: the weights that a run begins with."""
    return RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)]), "config": ConfigRecord()})


def contained(objects: ObjectTree) -> dict[str, set[str]]:
    """What each of some objects contains."""
    return {
        each.object_id: {child.object_id for child in each.children}
        for each in iterate_object_tree(objects)
    }


def objects(content: RecordDict) -> Iterator[tuple[str, bytes]]:
    for object_id, each in get_all_nested_objects(content).items():
        yield object_id, each.deflate()


def reserving(content: ObjectTree) -> list[ObjectTree]:
    """Replies in whose trees each object has another child than in truth."""
    found = []
    for child in content.children:
        bogus = ObjectTree(object_id=child.object_id, children=[tree(f"in {child.object_id}")])
        found += [tree(f"reply with {child.object_id}", bogus), *reserving(child)]
    return found


def test_an_object_that_a_node_has_reserved_is_sent_all_the_same(
    store: SqlObjectStore, sent: RecordDict
) -> None:
    true = get_object_tree(sent)
    for reply in reserving(true):
        store.preregister(RUN, reply)
    with pytest.raises(ValueError, match="preregistered with different children"):
        store.preregister(RUN, true)
    guard_objects()
    missing = store.preregister(RUN, true)
    assert {*missing} == {object_id for object_id, _ in objects(sent)}
    for object_id, content in objects(sent):
        store.put(object_id, content)
    assert contained(store.get_object_tree(true.object_id)) == contained(true)
    store.delete(reserving(true)[0].object_id)
    assert contained(store.get_object_tree(true.object_id)) == contained(true)
    store.delete_objects_in_run(RUN)
    assert true.object_id not in store


def test_what_is_there_says_what_it_contains(store: SqlObjectStore, sent: RecordDict) -> None:
    """Also where a node names an object between its naming and its coming."""
    guard_objects()
    true = get_object_tree(sent)
    store.preregister(RUN, true)
    for reply in reserving(true):
        store.preregister(RUN, reply)
    for object_id, content in objects(sent):
        store.put(object_id, content)
    assert contained(store.get_object_tree(true.object_id)) == contained(true)
    late = ObjectTree(object_id=true.object_id, children=[tree("bogus")])
    with pytest.raises(ValueError, match="preregistered with different children"):
        store.preregister(RUN, tree("late reply", late))


def test_no_node_changes_what_the_server_says(
    store: SqlObjectStore, sent: RecordDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who asks for a message just then would look for objects that never come."""
    true, names = get_object_tree(sent), dict(objects(sent))

    def push(request: PushAppMessagesRequest, state: Any, task: Task) -> PushAppMessagesResponse:
        store.preregister(RUN, true)
        return PushAppMessagesResponse()

    monkeypatch.setattr(runtime_handlers, "push_messages", push)
    guard_objects()
    store.preregister(RUN, reserving(true)[0])
    runtime_handlers.push_messages(PushAppMessagesRequest(), state=store, task=Task())
    for reply in reserving(true):
        with pytest.raises(ValueError, match="preregistered with different children"):
            store.preregister(RUN, reply)
        assert contained(store.get_object_tree(true.object_id)) == contained(true)
    assert {*store.preregister(RUN, true)} == {*names}  # who says the same may
    store.delete_objects_in_run(RUN)  # the run has ended, and what never came is forgotten
    for reply in (true, *reserving(true)):
        store.preregister(RUN + 1, reply)  # of nodes, the last one's word counts again


def test_nothing_contains_itself(store: SqlObjectStore, sent: RecordDict) -> None:
    guard_objects()
    whole, content = get_object_tree(sent), dict(objects(sent))
    first, *others = (ObjectTree(object_id=child.object_id) for child in whole.children)
    circle = ObjectTree(object_id=first.object_id, children=[ObjectTree(object_id=whole.object_id)])
    store.preregister(RUN, tree("reply", circle, *others))
    with pytest.raises(ValueError, match="would contain itself"):
        store.put(whole.object_id, content[whole.object_id])
    store.preregister(RUN, whole)
    store.put(whole.object_id, content[whole.object_id])
    assert contained(store.get_object_tree(whole.object_id)) == contained(whole)


def test_a_reply_is_shown_once_all_of_it_is_there(
    store: SqlObjectStore, sent: RecordDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server would wait for it, whatever round-timeout is, and for no other reply."""
    asked: list[list[str]] = []

    def pull(request: PullAppMessagesRequest, state: Any, task: Task) -> PullAppMessagesResponse:
        asked.append(list(request.message_ids))
        return PullAppMessagesResponse()

    monkeypatch.setattr(runtime_handlers, "pull_messages", pull)
    guard_objects()
    state = SqlLinkState(str(tmp_path / "superlink.db"), SimpleNamespace(), store)
    state.initialize()
    reply = get_object_tree(sent)
    store.preregister(RUN, reply)
    with state.session() as session:
        session.execute(
            insert(MessageRes).values(
                message_id=reply.object_id, reply_to_message_id="held", delivered_at=""
            )
        )

    def shown() -> list[str]:
        runtime_handlers.pull_messages(
            PullAppMessagesRequest(message_ids=["other", "held"]), state, Task()
        )
        return asked[-1]

    for object_id, content in objects(sent):
        assert shown() == ["other"]
        store.put(object_id, content)
    assert shown() == ["other", "held"]
