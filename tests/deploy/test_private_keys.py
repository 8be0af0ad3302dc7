"""A private key that others may read is refused, as ssh does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pluralllm_app.core.private_files import check_private
from pluralllm_app.errors import UserError
from tests.support.deployment import command

MODES = [0o604, 0o640, 0o644, 0o602, 0o620, 0o666]


@pytest.mark.parametrize("mode", MODES)
def test_what_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "node.key"
    file.touch()
    file.chmod(mode)
    with pytest.raises(UserError, match=rf"read {file} \(mode {mode:04o}\).*`chmod 600 {file}`"):
        check_private(file)
    file.chmod(0o600)
    check_private(file)
    file.chmod(0o400)
    check_private(file)


def test_the_group_may_read_what_another_owner_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.key"
    file.touch()
    file.chmod(0o640)
    monkeypatch.setattr(os, "getuid", lambda: file.stat().st_uid + 1)
    check_private(file)
    file.chmod(0o644)
    with pytest.raises(UserError, match="mode 0644"):
        check_private(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "option", "key"),
    [
        ("superlink", "--ssl-keyfile", "server/server.key"),
        ("supernode", "--auth-supernode-private-key", "nodes/alder/node.key"),
    ],
)
def test_neither_superlink_nor_node_starts_with_it(
    made: Path, module: str, option: str, key: str
) -> None:
    file = made / key
    file.chmod(0o644)
    started = subprocess.run(
        [
            sys.executable,
            "-m",
            f"pluralllm_app.deploy.{module}",
            "--superlink",
            "x:1",
            option,
            file,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 1
    assert started.stderr == (
        f"Error: others than its owner may read {file} (mode 0644), which is secret: run "
        f"`chmod 600 {file}`; if somebody may have read it, make a new key\n"
    )


def test_a_certificate_is_not_renewed_with_it(made: Path) -> None:
    (made / "ca" / "ca.key").chmod(0o644)
    result = command("renew", made)
    assert "ca.key (mode 0644), which is secret" in str(result.exception)
