"""A node counts what it is asked before it answers, and no restart undoes it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.errors import RefusedError, UserError
from pluralllm_app.federation import ledger
from pluralllm_app.federation.ledger import LEDGER, Count, Ledger, admit
from pluralllm_app.federation.node_files import prepare_node
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.settings import Settings


def asked(node: Path, settings: Settings, run: int = 7, rounds: int = 1) -> None:
    admit(node, settings, run, rounds=rounds)


@pytest.mark.parametrize(
    ("limit", "calls"),
    [
        ("most-rounds = 2", [(7, 1), (7, 1), (7, 0), (8, 1)]),
        ("most-rounds-in-total = 2", [(7, 1), (8, 1), (9, 0)]),
        ("most-messages = 2", [(7, 0), (7, 1), (8, 0)]),
        ("most-messages-in-total = 3", [(7, 0), (8, 1), (9, 0)]),
    ],
)
def test_limits_hold_for_a_run_and_in_total(
    tmp_path: Path, make_settings: Callable[..., Settings], limit: str, calls: list[Any]
) -> None:
    """These are allowed; one more in run 7 is not, nor the same again."""
    (tmp_path / POLICY).write_text(limit)
    settings = make_settings({"rounds": 1})
    for run, rounds in calls:
        asked(tmp_path, settings, run, rounds)
    before = (tmp_path / LEDGER).read_bytes()
    key, _, number = limit.partition(" = ")
    for _ in range(2):
        with pytest.raises(RefusedError, match=f"has {key} = {number}, and this would be number"):
            asked(tmp_path, settings)
    assert (tmp_path / LEDGER).read_bytes() == before
    assert (tmp_path / LEDGER).stat().st_mode & 0o777 == 0o600


def test_what_was_asked_before_there_was_a_limit_counts(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    for _ in range(3):
        asked(tmp_path, make_settings())
    (tmp_path / POLICY).write_text("most-rounds-in-total = 3")
    with pytest.raises(RefusedError):
        asked(tmp_path, make_settings())
    assert Ledger.read(tmp_path) == Ledger(Count(3, 3), {"7": Count(3, 3)})


def test_a_refused_message_is_not_counted(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    (tmp_path / POLICY).write_text('learners = ["factors"]\nsingle-scores = "stay"')
    with pytest.raises(RefusedError):
        asked(tmp_path, make_settings())
    secure = make_settings({"predictor": "factors", "privacy": "secure-sum"})
    with pytest.raises(RefusedError, match='single-scores = "stay"'):
        admit(tmp_path, secure, 7, scores=True)
    assert not (tmp_path / LEDGER).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"total": {}, "runs": {"7": 3}}'])
def test_a_damaged_ledger_stops_the_node(
    tmp_path: Path, make_settings: Callable[..., Settings], content: str
) -> None:
    (tmp_path / LEDGER).write_text(content)
    with pytest.raises(UserError, match=r"ledger\.json is damaged .* restore it from a copy"):
        prepare_node(tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        asked(tmp_path, make_settings())
    assert (tmp_path / LEDGER).read_text() == content


def test_where_it_cannot_count_a_node_does_nothing(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "write_atomically", full)
    with pytest.raises(UserError, match=r"cannot write ledger\.json, .*: No space left"):
        asked(tmp_path, make_settings())


COUNTS = """
import sys
from pathlib import Path
from types import SimpleNamespace
from pluralllm_app.federation import ledger

ledger.Policy.check = lambda policy, settings: None
for _ in range(int(sys.argv[2])):
    ledger.admit(Path(sys.argv[1]), SimpleNamespace(), 7, rounds=1)
    print("counted", flush=True)
"""


def counting(node: Path, times: int) -> "subprocess.Popen[str]":
    """A process that takes up so many messages, with a line for each that it would answer."""
    command = [sys.executable, "-c", COUNTS, str(node), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_node_that_is_killed_has_counted_what_it_answers(tmp_path: Path) -> None:
    """Killed at any moment, and two processes at once."""
    answered = 0
    for stop_after in (1, 7, 20):
        process = counting(tmp_path, 10**6)
        assert process.stdout
        for _ in range(stop_after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        answered += stop_after + len(process.stdout.readlines())
        process.wait()
        assert Ledger.read(tmp_path).total.rounds - answered in (0, 1)
        answered = Ledger.read(tmp_path).total.rounds
    both = [counting(tmp_path, 25) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert Ledger.read(tmp_path).total == Count(answered + 50, answered + 50)
