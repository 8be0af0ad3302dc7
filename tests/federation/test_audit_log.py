"""The node notes what it does before an answer leaves, in a file that outlives crashes."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supernode import start_client_internal as loop

from pluralllm_app.errors import FederationError, RefusedError, UserError
from pluralllm_app.federation import flower_node
from pluralllm_app.federation.audit_log import Answered, AuditLog
from pluralllm_app.federation.flower_compat import exception_reply, identify_process
from pluralllm_app.secure_sum.checks import RefusedSumError

ENTRY = Answered(
    run="18446744073709551615",
    code="a" * 64,
    message="train",
    round=3,
    bytes_in=1000,
    bytes_out=2000,
    seconds=1.5,
    outcome="answered",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_says_what_the_node_did(file: Path) -> None:
    AuditLog(file).write(ENTRY)
    assert file.stat().st_mode & 0o777 == 0o600
    [line] = lines(file)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "run": "18446744073709551615",
        "code": "a" * 64,
        "message": "train",
        "round": 3,
        "bytes_in": 1000,
        "bytes_out": 2000,
        "seconds": 1.5,
        "outcome": "answered",
    }


def test_lines_are_appended_whoever_renames_the_file(file: Path, tmp_path: Path) -> None:
    file.touch(0o644)
    log = AuditLog(file)
    assert file.stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        log.write(ENTRY)
    AuditLog(file).write(ENTRY)
    assert len(lines(file)) == 3
    file.rename(tmp_path / "audit.jsonl.1")
    log.write(ENTRY)
    assert len(lines(file)) == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_torn_line_is_ended_and_harms_no_other(file: Path) -> None:
    AuditLog(file).write(ENTRY)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    AuditLog(file).write(ENTRY)
    first, torn, last = file.read_bytes().splitlines(keepends=True)
    assert first == whole
    assert torn == whole[:40] + b"\n"
    assert json.loads(last)["round"] == 3


def test_a_log_that_cannot_be_written_keeps_the_node_from_starting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*no/audit\.jsonl, in which this node"):
        AuditLog(tmp_path / "no" / "audit.jsonl")


class Node:
    """Flower's loop of a SuperNode, which has an answer to send."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loop, "_push_messages", loop._push_messages)
        self.log = flower_node._Answers(AuditLog(file))
        self.log.codes[7] = "c" * 64
        flower_node._note_answers(self.log)
        self.sent: list[str] = []

    def asked(self, kind: str, group_id: str) -> Message:
        identify_process()
        message = Message(RecordDict(), dst_node_id=1, message_type=kind, group_id=group_id)
        message.metadata.__dict__["_run_id"] = 7
        message.metadata.__dict__["_message_id"] = "m" * 64
        self.log.begin(message)
        self.log.add(300)
        self.log.add(40)
        return message

    def push(self, answer: Message) -> int:
        """Send an answer; returns the bytes of what it holds."""
        answer.metadata.__dict__["_message_id"] = answer.object_id
        objects = {key: part.deflate() for key, part in get_all_nested_objects(answer).items()}
        waited = dict.fromkeys(objects, 1)  # looks at an object before it is there

        def get(object_id: str) -> bytes:
            waited[object_id] -= 1
            return b"" if waited[object_id] >= 0 else objects[object_id]

        loop._push_messages(
            state=SimpleNamespace(
                get_messages_legacy=lambda is_reply: [answer],
                get_message_processing_duration=lambda message_id: 0.0,
                delete_messages=lambda message_ids: None,
            ),
            object_store=SimpleNamespace(
                get=get,
                get_object_tree=lambda message_id: get_object_tree(answer),
                delete=lambda message_id: None,
            ),
            send=lambda answer, tree, seconds: self.sent.append("sent") or (set(), ""),
            push_object=lambda *_: None,
        )
        return sum(map(len, objects.values()))


def test_an_answer_is_noted_before_it_is_sent(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(file, monkeypatch)
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    size = node.push(Message(content, reply_to=node.asked("train", "12")))
    [line] = lines(file)
    assert line.pop("seconds") >= 0
    del line["time"]
    assert line == {
        "run": "7",
        "code": "c" * 64,
        "message": "train",
        "round": 12,
        "bytes_in": 340,
        "bytes_out": size,
        "outcome": "answered",
    }
    assert node.sent == ["sent"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ErrorCode.INVALID_FAB, "refused"),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "failed"),
    ],
)
def test_errors_are_noted_without_their_text(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: int, outcome: str
) -> None:
    node = Node(file, monkeypatch)
    for group_id in ("", "\x1b[31m", "٣", "-1"):
        asked = node.asked("query", group_id)
        node.push(Message(Error(code, "a question's text"), reply_to=asked))
    assert [(line["outcome"], line["round"]) for line in lines(file)] == [(outcome, None)] * 4
    assert "text" not in file.read_text()


def test_what_its_owner_does_not_let_is_noted_as_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(file, monkeypatch)
    errors = (
        RefusedError("its policy.toml has most-rounds = 2"),
        RefusedSumError("it has opened this sum before"),
        FederationError("refused"),
    )
    for error in errors:
        node.push(exception_reply(error, node.asked("train", "3")))
    assert [line["outcome"] for line in lines(file)] == ["refused", "refused", "failed"]


def test_no_answer_leaves_that_is_not_noted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(opened: int) -> None:
        raise OSError(28, "No space left on device")

    def leave(code: int, message: str) -> None:
        raise SystemExit(message)

    monkeypatch.setattr("flwr.supercore.exit.flwr_exit", leave)
    node = Node(file, monkeypatch)
    answer = Message(RecordDict(), reply_to=node.asked("train", "1"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit, match=r"no answer leaves that is not in it: .*No space"):
        node.push(answer)
    assert node.sent == []
