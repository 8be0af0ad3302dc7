"""A node compares what it is sent with its own code, and takes no part where that is another."""

import hashlib
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as loop
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralllm_app.core.code import code_hash, installed_hash
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.federation import flower_node
from pluralllm_app.federation.audit_log import AuditLog
from pluralllm_app.federation.flower_apps import OwnApp
from pluralllm_app.federation.flower_compat import error_reason, identify_process
from pluralllm_app.federation.own_code import differences, refusal
from tests.support.bundles import PYPROJECT, changed, hostile, members

OWN = OwnApp.of(own_files())
BUNDLE = OWN.bundle.content


@pytest.fixture(scope="module")
def attacks() -> dict[str, tuple[bytes, str]]:
    """Bundles that a hostile server might send, each with what a refusal names."""
    return hostile(BUNDLE, Path("/nowhere/marker"))


def test_the_hash_is_that_of_a_list_of_hashes() -> None:
    # printf 'b\n' | sha256sum, printf '' | sha256sum, and those two lines once more
    files = {"b.py": b"", "a.py": b"b\n"}
    listed = (
        "0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f  a.py\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b.py\n"
    )
    assert code_hash(files) == hashlib.sha256(listed.encode()).hexdigest()
    assert OWN.hash == installed_hash()


def test_the_nodes_own_bundle_is_taken_however_it_is_packed() -> None:
    assert differences(BUNDLE, BUNDLE) == []
    again = members(BUNDLE)
    again[PYPROJECT] = again[PYPROJECT].replace(b" = ", b"  =  ") + b"\n# another form\n"
    assert differences(changed(dict(reversed(again.items()))), BUNDLE) == []


def test_another_bundle_is_refused_by_the_name_of_the_file(
    attacks: dict[str, tuple[bytes, str]],
) -> None:
    for attack, (sent, named) in attacks.items():
        why = refusal(sent, BUNDLE, OWN.hash)
        assert why is not None, attack
        assert named in why, attack
        assert why.isprintable(), attack
        assert len(why) < 1000, attack
        assert f"the hash {OWN.hash[:12]}: install the same version" in why, attack


def test_no_bomb_is_unpacked(attacks: dict[str, tuple[bytes, str]]) -> None:
    bombs = [sent for attack, (sent, _) in attacks.items() if "bomb" in attack]
    assert len(bombs) == 4
    tracemalloc.start()
    for sent in bombs:
        assert refusal(sent, BUNDLE, OWN.hash)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 2**20


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_bundle_never_raises(data: st.DataObject) -> None:
    small = changed({PYPROJECT: members(BUNDLE)[PYPROJECT], "pluralllm_app/a.py": b"a = 1\n"})
    damaged = bytearray(small)
    for place in data.draw(st.lists(st.integers(0, len(small) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    assert isinstance(differences(bytes(damaged), small), list)
    cut = small[: data.draw(st.integers(0, len(small) - 1))]
    assert differences(cut, small)


# ---- In Flower's loop ----


class Node:
    """Flower's loop of a SuperNode, with a SuperLink that says what it likes."""

    def __init__(
        self, sent: bytes, monkeypatch: pytest.MonkeyPatch, file: Path, **run: Any
    ) -> None:
        monkeypatch.setattr(loop, "_pull_and_store_message", loop._pull_and_store_message)
        monkeypatch.setattr(loop, "_insert_message", self._insert)
        self.log = flower_node._Answers(AuditLog(file))
        flower_node._run_own_code(lambda: own_files(), self.log)
        self.sent, self.run, self.inserted = sent, run, []
        self.asked: list[str] = []

    def _insert(self, message: Message, state: object, store: object) -> None:
        self.inserted.append(message)

    def pull(self) -> tuple[int | None, dict[str, Any]]:
        """Let it take a message of a new run; returns that run, and what was stored of it."""
        identify_process()
        message = Message(RecordDict(), dst_node_id=1, message_type="query")
        message.metadata.__dict__["_run_id"] = 7
        message.metadata.__dict__["_message_id"] = "a" * 64
        stored: dict[str, Any] = {}
        state = SimpleNamespace(
            get_run=lambda run_id: None,
            get_node_id=lambda: 1,
            get_run_series_context=lambda series: None,
            set_run_series_context=lambda series, context: stored.update(context=context),
            store_run=lambda run: stored.update(run=run),
            store_fab=lambda fab: stored.update(fab=fab),
            create_task=lambda **task: stored.update(task=task) or 1,
            store_message=lambda message: None,
        )

        def get_fab(fab_hash: str, run_id: int) -> Fab:
            self.asked.append(fab_hash)
            return Fab(fab_hash, self.sent, {})

        run = Run.create_empty(7)
        for name, value in ({"fab_hash": "theirs"} | self.run).items():
            setattr(run, name, value)
        found = loop._pull_and_store_message(
            state=state,
            object_store=SimpleNamespace(preregister=lambda run, tree: []),
            node_config={},
            receive=lambda: (message, None),
            get_run=lambda run_id: run,
            get_fab=get_fab,
            pull_object=lambda run_id, object_id: b"",
            confirm_message_received=lambda run_id, message_id: None,
            trusted_entities=None,
        )
        return found, stored


def test_the_node_stores_its_own_app_and_none_that_was_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the server says of the run: names that lead elsewhere, and another kind of app."""
    sent = changed(members(BUNDLE))
    assert sent != BUNDLE
    node = Node(
        sent,
        monkeypatch,
        tmp_path / "audit.jsonl",
        fab_id="../evil",
        fab_version="/../../../../tmp/evil",
        primary_task_type="flwr-agentapp",
        override_config={"rounds": 3},
    )
    found, stored = node.pull()
    assert (found, node.inserted, node.asked) == (7, [], ["theirs"])
    assert stored["fab"] == OWN.bundle
    run = stored["run"]
    assert (run.fab_id, run.fab_version) == ("pluralllm/pluralllm-app", OWN.version)
    assert run.fab_hash == stored["task"]["fab_hash"] == OWN.bundle.hash_str
    assert stored["task"]["task_type"] == "flwr-clientapp"
    assert stored["context"].run_config["rounds"] == 3


@pytest.mark.parametrize("attack", ["changed file", "bomb", "no archive"])
def test_a_refused_run_stores_nothing_and_is_answered(
    attack: str,
    attacks: dict[str, tuple[bytes, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    sent, named = attacks[attack]
    node = Node(sent, monkeypatch, tmp_path / "audit.jsonl")
    found, stored = node.pull()
    assert (found, stored) == (7, {})
    [reply] = node.inserted
    assert reply.error.code == ErrorCode.INVALID_FAB
    assert named in error_reason(reply)


def test_settings_that_the_app_does_not_have_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = Node(BUNDLE, monkeypatch, tmp_path / "audit.jsonl", override_config={"no-such": 1})
    assert node.pull() == (7, {})
    assert "the run's settings are not those of this app" in error_reason(node.inserted[0])


def test_code_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = Node(BUNDLE, monkeypatch, tmp_path / "audit.jsonl")

    def gone() -> dict[str, bytes]:
        raise FileNotFoundError(2, "No such file", "client_app.py")

    monkeypatch.setattr(f"{__name__}.own_files", gone)
    assert node.pull() == (7, {})
    assert "the node cannot read its own code" in error_reason(node.inserted[0])


@pytest.mark.slow
def test_the_one_copy_that_apps_run_from_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps, name = tmp_path / "apps", OWN.id.replace("/", ".")
    earlier = apps / f"{name}.0.2.0.12345678" / "evil.py"
    another = apps / "else.app.1.0.0.12345678" / "app.py"
    for file in (earlier, another):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    for _ in range(2):
        OWN.install_alone()
        [own] = set(apps.iterdir()) - {another.parent}
        assert own.name == f"{name}.{OWN.version}.{OWN.bundle.hash_str[:8]}"
        files = {file.relative_to(own).as_posix() for file in own.rglob("*") if file.is_file()}
        assert files == set(own_files())
        (own / "pluralllm_app" / "evil.py").touch()
