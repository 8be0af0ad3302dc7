"""A new certificate for the server."""

import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from pluralllm_app.cli.main import app
from pluralllm_app.deploy import keys
from pluralllm_app.deploy.keys import server_names
from pluralllm_app.deploy.renewal import renew
from pluralllm_app.errors import UserError
from tests.support.command import CliRunner


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


@pytest.mark.parametrize("new", [False, True])
def test_the_servers_certificate_is_renewed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    key = path / "ca/ca.key"
    if new:
        shutil.rmtree(key.parent)  # all of it is on a safe machine
    monkeypatch.setattr(keys, "SERVER_DAYS", 100)
    done = CliRunner().invoke(app, ["deploy", "renew", str(path), *["--new-authority"] * new])
    assert done.exit_code == 0, done.output
    assert ("The authority is new" in done.output) is new
    server = certificate(path / "server/server.crt")
    assert server.not_valid_after_utc - server.not_valid_before_utc == timedelta(days=100)
    assert server_names(path / "server/server.crt") == server_names(made / "server/server.crt")
    same = (path / "server/ca.crt").read_bytes() == (made / "server/ca.crt").read_bytes()
    assert same is not new
    verifier = PolicyBuilder().store(Store([certificate(path / "server/ca.crt")]))
    verifier.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    private = load_pem_private_key((path / "server/server.key").read_bytes(), None)
    assert private.public_key() == server.public_key()
    for file in (key, path / "server/server.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_certificate_needs_its_own_authority(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    before = (path / "server/server.crt").read_bytes()
    (path / "ca/ca.key").write_bytes((path / "server/server.key").read_bytes())
    with pytest.raises(UserError, match=r"ca\.key is not the key that .*ca\.crt was made"):
        renew(path, [], False)
    (path / "ca/ca.key").write_text("damaged")
    with pytest.raises(UserError, match="cannot read the private key"):
        renew(path, [], False)
    (path / "ca/ca.key").unlink()
    with pytest.raises(UserError, match=r"restore it, or .* --new-authority"):
        renew(path, [], False)
    assert (path / "server/server.crt").read_bytes() == before
    (path / "server/server.crt").write_text("damaged")
    with pytest.raises(UserError, match="cannot read the certificate"):
        renew(path, [], True)
    renew(path, ["other.example.org"], True)
    names = ["other.example.org", "localhost", "127.0.0.1", "::1"]
    assert server_names(path / "server/server.crt") == names
    shutil.copy(path / "server/ca.crt", path / "server/server.crt")
    with pytest.raises(UserError, match="names no server"):
        renew(path, [], True)
