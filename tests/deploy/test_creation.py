"""What `pluralllm deploy init` makes: keys, certificates, their modes."""

import re
import stat
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.deploy.invitation import certificate_fingerprint
from pluralllm_app.errors import UserError
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.deployment import command, deployed


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


def test_another_authority_does_not_vouch(
    made: Path, tmp_path: Path, tiny_survey: PreparedSurvey
) -> None:
    other = certificate(deployed(tmp_path / "b", tiny_survey) / "server/ca.crt")
    verifier = (
        PolicyBuilder().store(Store([other])).build_server_verifier(x509.DNSName("localhost"))
    )
    with pytest.raises(VerificationError):
        verifier.verify(certificate(made / "server/server.crt"), [])


def test_keys_are_for_their_owner_alone(made: Path) -> None:
    keys = sorted(str(file.relative_to(made)) for file in made.rglob("*.key"))
    assert len(keys) == 5
    assert {stat.S_IMODE((made / key).stat().st_mode) for key in keys} == {0o600}
    for directory in [made, *(made / key for key in keys)]:
        directory = directory if directory.is_dir() else directory.parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_server_has_no_key_of_a_node(tmp_path: Path, tiny_survey: PreparedSurvey) -> None:
    path = deployed(tmp_path / "there", tiny_survey)
    keys = {str(file.relative_to(path)) for file in path.rglob("*.key")}
    assert keys == {"ca/ca.key", "server/server.key"}
    assert read_groups(path) == {}


def test_the_server_has_the_questions_and_no_answers(
    tmp_path: Path, tiny_survey: PreparedSurvey
) -> None:
    path = deployed(tmp_path / "there", tiny_survey)
    held = PreparedSurvey.open(path / "server/questionnaire")
    assert held.fingerprint == tiny_survey.fingerprint
    assert held.groups == ()
    assert not list(path.rglob("groups/*"))


def test_nothing_is_overwritten(made: Path, tmp_path: Path, tiny_survey: PreparedSurvey) -> None:
    before = (made / "ca/ca.key").read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        deployed(made, tiny_survey)
    assert (made / "ca/ca.key").read_bytes() == before
    (tmp_path / "empty").mkdir()
    deployed(tmp_path / "empty", tiny_survey)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        deployed(tmp_path / "file", tiny_survey)
    with pytest.raises(UserError, match=r"cannot write .* it is made whole in /proc/none,"):
        deployed(Path("/proc/none/there"), tiny_survey)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("servers", "port", "message"),
    [
        (["https://flower.example.org"], 9443, "neither a DNS name nor an IP address"),
        (["flower.example.org:9443"], 9443, "neither a DNS name nor an IP address"),
        (["$(id)"], 9443, "neither a DNS name nor an IP address"),
        (["fe80::1%$(id)"], 9443, "neither a DNS name nor an IP address"),
        (["-x"], 9443, "neither a DNS name nor an IP address"),
        (["a", "192.0.2.7", "2001:db8::1"], 9443, "IPv4 or on IPv6, not on both"),
        (["::1", "127.0.0.1"], 9443, "IPv4 or on IPv6, not on both"),
        ([], 9443, "at least one --server"),
        (["a"], 65536, "port 65536"),
        (["a"], 0, "port 0"),
    ],
)
def test_wrong_wishes_are_refused(
    tmp_path: Path, tiny_survey: PreparedSurvey, servers: list[str], port: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        initialise(tmp_path / "there", servers, port, tiny_survey.path)
    assert list(tmp_path.iterdir()) == []


def test_a_federation_needs_its_questions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        initialise(tmp_path / "there", ["a"], 9443, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_made(tmp_path: Path, tiny_survey: PreparedSurvey) -> None:
    arguments = ["init", tmp_path / "there", "--server", "192.0.2.7"]
    done = command(*arguments, "--questionnaire", tiny_survey.path)
    assert done.exit_code == 0, done.output
    assert f"questionnaire: tiny, fingerprint {tiny_survey.fingerprint[:12]}\n" in done.output
    assert "192.0.2.7, localhost, 127.0.0.1, ::1" in done.output
    assert re.search(r"CN=PluralLLM federation CA, valid \d{4}-\d\d-\d\d to \d{4}", done.output)
    assert re.search(r"CN=PluralLLM SuperLink, valid \d{4}-\d\d-\d\d to \d{4}", done.output)
    authority = certificate(tmp_path / "there/server/ca.crt")
    assert f"fingerprint of the authority: {certificate_fingerprint(authority)}\n" in done.output
