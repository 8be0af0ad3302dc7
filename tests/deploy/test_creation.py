"""What `pluralllm deploy init` makes: keys, certificates, their modes."""

import re
import shutil
import stat
import subprocess
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from typer.testing import CliRunner

from pluralllm_app.cli.main import app
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.deploy.keys import fingerprint
from pluralllm_app.errors import UserError
from tests.deploy.conftest import SERVERS


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_the_certificates_verify_for_every_name(made: Path) -> None:
    authority, server = certificate(made / "server/ca.crt"), certificate(made / "server/server.crt")
    for name in ("flower.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"):
        subject = (
            x509.DNSName(name) if re.search("[g-z]", name) else x509.IPAddress(ip_address(name))
        )
        policy = PolicyBuilder().store(Store([authority]))
        assert policy.build_server_verifier(subject).verify(server, []) == [server, authority]
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example.org")).verify(server, [])
    assert server.not_valid_after_utc - server.not_valid_before_utc == timedelta(days=825)
    assert authority.not_valid_after_utc - authority.not_valid_before_utc == timedelta(days=3650)
    key = load_pem_private_key((made / "server/server.key").read_bytes(), None)
    assert key.public_key() == server.public_key()
    key = load_pem_private_key((made / "ca/ca.key").read_bytes(), None)
    assert key.public_key() == authority.public_key()


def test_critical_extensions(made: Path) -> None:
    for file, ca in (("ca.crt", True), ("server.crt", False)):
        extensions = certificate(made / "server" / file).extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert usage.critical
        assert constraints.value.ca == usage.value.key_cert_sign == ca


def test_another_authority_does_not_vouch(made: Path, tmp_path: Path) -> None:
    other = certificate(initialise(tmp_path / "b", SERVERS, ["A"], 9443).path / "server/ca.crt")
    verifier = (
        PolicyBuilder().store(Store([other])).build_server_verifier(x509.DNSName("localhost"))
    )
    with pytest.raises(VerificationError):
        verifier.verify(certificate(made / "server/server.crt"), [])


def test_each_node_has_a_key_of_its_own(made: Path) -> None:
    publics = set()
    for slug in read_groups(made):
        directory = made / "nodes" / slug
        private = load_ssh_private_key((directory / "node.key").read_bytes(), None)
        public = (directory / "node.key.pub").read_bytes()
        assert (made / f"server/nodes/{slug}.pub").read_bytes() == public
        assert (directory / "ca.crt").read_bytes() == (made / "server/ca.crt").read_bytes()
        numbers = private.public_key().public_numbers()  # type: ignore[union-attr]
        publics.add((numbers.x, numbers.y))  # type: ignore[union-attr]
    assert len(publics) == 3


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen")
def test_keys_are_as_ssh_keygen_writes_them(made: Path) -> None:
    public = made / "nodes/alder/node.key.pub"
    listed = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True).stdout
    assert listed == f"384 {fingerprint(public.read_bytes())} alder (ECDSA)\n"
    derived = subprocess.run(
        ["ssh-keygen", "-yf", made / "nodes/alder/node.key"], capture_output=True
    ).stdout
    assert derived.split()[:2] == public.read_bytes().split()[:2]


def test_keys_are_for_their_owner_alone(made: Path) -> None:
    keys = sorted(str(file.relative_to(made)) for file in made.rglob("*.key"))
    assert len(keys) == 5
    assert {stat.S_IMODE((made / key).stat().st_mode) for key in keys} == {0o600}
    for directory in [made, *(made / key for key in keys)]:
        directory = directory if directory.is_dir() else directory.parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_nothing_is_overwritten(made: Path, tmp_path: Path) -> None:
    before = (made / "ca/ca.key").read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        initialise(made, SERVERS, ["Alder"], 9443)
    assert (made / "ca/ca.key").read_bytes() == before
    (tmp_path / "empty").mkdir()
    initialise(tmp_path / "empty", SERVERS, ["Alder"], 9443)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        initialise(tmp_path / "file", SERVERS, ["Alder"], 9443)
    with pytest.raises(UserError, match=r"cannot write .* it is made whole in /proc/none,"):
        initialise(Path("/proc/none/there"), SERVERS, ["Alder"], 9443)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("servers", "groups", "port", "message"),
    [
        (["https://flower.example.org"], ["A"], 9443, "neither a DNS name nor an IP address"),
        (["flower.example.org:9443"], ["A"], 9443, "neither a DNS name nor an IP address"),
        (["$(id)"], ["A"], 9443, "neither a DNS name nor an IP address"),
        (["fe80::1%$(id)"], ["A"], 9443, "neither a DNS name nor an IP address"),
        (["-x"], ["A"], 9443, "neither a DNS name nor an IP address"),
        (["a", "192.0.2.7", "2001:db8::1"], ["A"], 9443, "IPv4 or on IPv6, not on both"),
        (["::1", "127.0.0.1"], ["A"], 9443, "IPv4 or on IPv6, not on both"),
        ([], ["A"], 9443, "at least one --server"),
        (["a"], [], 9443, "at least one --server"),
        (["a"], ["A", "B", "A"], 9443, "group 'A' is given twice"),
        (["a"], ["North", " North "], 9443, "group 'North' is given twice"),
        (["a"], ["\u00c9lan", "E\u0301lan"], 9443, "group '\u00c9lan' is given twice"),
        (["a"], [" "], 9443, "has no name"),
        (["a"], ["A B", "A\nB"], 9443, "group 'A B' is given twice"),
        (["a"], ["\x1b[31mA"], 9443, r"has the hidden character U\+001B"),
        (["a"], ["A"], 65536, "port 65536"),
        (["a"], ["A"], 0, "port 0"),
    ],
)
def test_wrong_wishes_are_refused(
    tmp_path: Path, servers: list[str], groups: list[str], port: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        initialise(tmp_path / "there", servers, groups, port)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    arguments = ["deploy", "init", str(tmp_path / "there"), "--server", "192.0.2.7"]
    done = CliRunner().invoke(app, [*arguments, "--groups", "Élan", "--groups", "[b]"])
    assert done.exit_code == 0, done.output
    public = (tmp_path / "there/nodes/elan/node.key.pub").read_bytes()
    assert f"node elan: {fingerprint(public)}  Élan\n" in done.output
    assert "  [b]\n" in done.output
    assert "192.0.2.7, localhost, 127.0.0.1, ::1" in done.output
    assert re.search(r"CN=PluralLLM federation CA, valid \d{4}-\d\d-\d\d to \d{4}", done.output)
    assert re.search(r"CN=PluralLLM SuperLink, valid \d{4}-\d\d-\d\d to \d{4}", done.output)
