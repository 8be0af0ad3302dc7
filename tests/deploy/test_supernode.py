"""A node that is not let in asks again."""

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from pluralllm_app.deploy import supernode
from pluralllm_app.deploy.supernode import directory_of, enter_patiently, with_node
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.errors import UserError
from pluralllm_app.federation.flower_node import NotLetInError
from pluralllm_app.federation.node_files import SECRET
from pluralllm_app.federation.policy import POLICY


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a node does: good-byes and seconds of sleep."""
    done: list[str] = []
    clock = SimpleNamespace(sleep=lambda seconds: done.append(f"sleep {seconds:g}"))
    monkeypatch.setattr(supernode, "time", clock)
    return done


def enter(calls: list[str], *answers: int | Exception) -> int:
    """Enter at a SuperLink that gives these answers, one after the other."""
    left = iter(answers)

    def ask() -> int:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return enter_patiently(ask, lambda answer: calls.append(f"leave {answer}"))


def test_a_node_that_is_let_in_starts_at_once(calls: list[str]) -> None:
    assert enter(calls, 3) == 3
    assert calls == []


def test_a_node_that_is_refused_asks_again_and_is_seen_to_have_been_away(
    calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert enter(calls, NotLetInError(), NotLetInError(), 3, 3) == 3
    assert calls == ["sleep 5", "sleep 5", "leave 3", "sleep 5"]
    assert capsys.readouterr().out.count("does not let this node in") == 1


def test_other_refusals_end_the_node(calls: list[str]) -> None:
    with pytest.raises(ValueError, match="another reason"):
        enter(calls, ValueError("another reason"))
    assert calls == []


def test_flowers_supernode_is_given_the_patience_and_a_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["supernode", "--superlink", "a:9443"])
    monkeypatch.setattr(supernode, "directory_of", lambda arguments: tmp_path)
    monkeypatch.setattr(supernode, "with_node", lambda arguments, node: arguments)
    seen = []
    monkeypatch.setattr(
        supernode, "run_supernode", lambda enter, own, log: seen.append((enter, own, *sys.argv))
    )
    monkeypatch.setattr(supernode, "take_environment", lambda: None)
    supernode.main()
    [(used, own, *arguments, port)] = seen
    assert (used, own) == (enter_patiently, own_files)
    assert arguments == ["supernode", "--superlink", "a:9443", "--host", "127.0.0.1", "--port"]
    assert 1024 <= int(port) <= 65535


def test_the_way_to_the_superlink_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(supernode, "run_supernode", lambda enter, own, log: None)
    monkeypatch.setattr(supernode, "directory_of", lambda arguments: tmp_path)
    monkeypatch.setattr(supernode, "with_node", lambda arguments, node: arguments)
    monkeypatch.setattr(supernode, "take_environment", lambda: None)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example.org:3128")
    for server, told in (("flower.example.org", True), ("127.0.0.1", False), ("[::1]", False)):
        monkeypatch.setattr(sys, "argv", ["supernode", "--superlink", f"{server}:9443"])
        supernode.main()
        said = "The SuperLink is called through the proxy https_proxy=http://proxy.example.org:3128"
        assert (said in capsys.readouterr().out) is told
    monkeypatch.setenv("ALL_PROXY", "socks://proxy.example.org:1080")
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(sys, "argv", ["supernode", "--superlink", "flower.example.org:9443"])
    supernode.main()
    assert (
        "ALL_PROXY is not used: proxies are http://, https:// or socks5://"
        in capsys.readouterr().out
    )


def test_a_mistake_at_the_node_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise UserError("what is wrong")

    monkeypatch.setattr(supernode, "directory_of", run)
    monkeypatch.setattr(supernode, "take_environment", lambda: None)
    monkeypatch.setattr(sys, "argv", ["supernode", "--superlink", "a:9443"])
    with pytest.raises(SystemExit, match=r"^Error: what is wrong$"):
        supernode.main()


def started(node: Path) -> list[str]:
    """The arguments of a node whose key is in a directory."""
    key = ["--auth-supernode-private-key", str(node / "node.key")]
    arguments = ["supernode", *key, "--node-config", 'site="/a"']
    return with_node(arguments, directory_of(arguments))


def test_a_node_makes_its_secret_once_and_names_its_directory(tmp_path: Path) -> None:
    node = tmp_path / "a b'c \"d"
    node.mkdir()
    config = tomllib.loads(started(node)[-1].replace(" node=", "\nnode="))
    assert config == {"site": "/a", "node": str(node)}
    secret = node / SECRET
    assert secret.stat().st_mode & 0o777 == 0o600
    content = secret.read_text()
    assert re.fullmatch("[0-9a-f]{64}\n", content)
    started(node)
    assert secret.read_text() == content
    assert [file.name for file in node.iterdir()] == [SECRET]


def test_another_node_has_another_secret(tmp_path: Path) -> None:
    made = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        started(tmp_path / name)
        made.add((tmp_path / name / SECRET).read_text())
    assert len(made) == 2


@pytest.mark.parametrize(
    ("secret", "mode", "message"),
    [
        ("", 0o600, "is damaged: restore it"),
        ("0" * 63, 0o600, "is damaged"),
        ("0" * 64, 0o640, "others than its owner may read"),
    ],
)
def test_a_secret_that_is_none_keeps_the_node_from_starting(
    tmp_path: Path, secret: str, mode: int, message: str
) -> None:
    (tmp_path / SECRET).write_text(secret)
    (tmp_path / SECRET).chmod(mode)
    with pytest.raises(UserError, match=message):
        started(tmp_path)
    assert (tmp_path / SECRET).read_text() == secret


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("least-local-step = 4", "did you mean 'least-local-steps'"),
        ("least_local_steps = 4", "unknown setting"),
        ("least-local-steps = 0", "least-local-steps = 0 must be at least 1"),
        ("least-local-steps = '4'", "must be a whole number"),
        ("least-local-steps = true", "must be a whole number"),
        ("least-tasks-per-step = 1.5", "must be a whole number"),
        ("draws = 'seed'", "draws = 'seed' does not exist"),
        ("draws = ['secret']", "does not exist"),
        ("[draws]\nsecret = 1", "does not exist"),
        ("[other]\nsecret = 1", "unknown setting 'other'"),
        ("draws = secret", "is not valid TOML"),
        ("learner = ['gpo']", "did you mean 'learners'"),
        ("learners = []", "must be a list"),
        ("learners = 'gpo'", "must be a list"),
        ("learners = ['GPO']", "learners = 'GPO' does not exist: did you mean 'gpo'"),
        ("learners = [['gpo']]", "does not exist"),
        ("secure-sum = true", "secure-sum = True does not exist: "),
        ("secure-sum = 'factor'", "did you mean 'factors'"),
        ("single-scores = false", "single-scores = False does not exist"),
        ("least-train-groups = 0", "least-train-groups = 0 must be at least 1"),
        ("most-rounds = 0", "most-rounds = 0 must be at least 1"),
        ("most-messages = 1.0", "most-messages = 1.0 must be a whole number"),
        ("most-rounds-in-total = -1", "must be at least 1"),
        ("most-messages-in-total = 9223372036854775808", "at most 9.22337e+18"),
        ("most-round = 3", "did you mean 'most-rounds'"),
        ("peers = 'SHA256:'", "peers = 'SHA256:' must be a table"),
        ("peers.North = 'SHA256:short'", "peers: North = 'SHA256:short' must be SHA256: and 43"),
        ("[peers]\nNorth = 1", "peers: North = 1 must be SHA256:"),
        ("peers.' North' = ''", "peers has ' North', which is no name"),
        ("[peer]\nNorth = ''", "did you mean 'peers'"),
    ],
)
def test_a_mistyped_policy_keeps_the_node_from_starting(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / POLICY).write_text(text)
    with pytest.raises(UserError) as refused:
        started(tmp_path)
    assert str(refused.value).startswith("policy.toml: ")
    assert message in str(refused.value)
    assert not (tmp_path / SECRET).exists()
