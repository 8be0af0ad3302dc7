"""How a group's node is made on its own machine, and let in by the server."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from msgspec.structs import replace

from pluralllm_app.core.locks import held
from pluralllm_app.deploy.groups import admit_group, read_groups, read_roles, remove_group
from pluralllm_app.deploy.invitation import (
    INVITATION,
    MAX_BYTES,
    Request,
    read_invitation,
    read_request,
)
from pluralllm_app.deploy.joining import Node, join
from pluralllm_app.deploy.keys import public_line
from pluralllm_app.errors import UserError
from pluralllm_app.federation.registration import fingerprint
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import Site, write_site
from tests.conftest import make_survey
from tests.support.deployment import command, deployed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_survey: PreparedSurvey) -> Path:
    return deployed(tmp_path_factory.mktemp("server") / "there", tiny_survey)


@pytest.fixture
def path(server: Path, tmp_path: Path) -> Path:
    """A deployment without groups, to be changed."""
    return Path(shutil.copytree(server, tmp_path / "there"))


@pytest.fixture
def site(tmp_path: Path, tiny_survey: PreparedSurvey) -> Path:
    return write_site(tiny_survey, "Alder", tmp_path / "site").survey.path


@pytest.fixture
def node(path: Path, site: Path, tmp_path: Path) -> Node:
    return join(read_invitation(path / INVITATION), site, tmp_path / "node")


def other_key() -> str:
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key(), "x").decode()


def test_the_private_key_is_at_the_node_alone(path: Path, node: Node) -> None:
    slug = admit_group(path, read_request(node.path / "request.json"))
    private = load_ssh_private_key((node.path / "node.key").read_bytes(), None)
    public = load_ssh_public_key((path / "server/nodes" / f"{slug}.pub").read_bytes())
    assert private.public_key() == public
    assert stat.S_IMODE((node.path / "node.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(node.path.stat().st_mode) == 0o700
    assert b"PRIVATE" not in (node.path / "request.json").read_bytes()
    assert b"PRIVATE" not in (path / INVITATION).read_bytes()
    secret = (node.path / "node.key").read_bytes().splitlines()[2]
    assert not any(secret in file.read_bytes() for file in path.rglob("*") if file.is_file())


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen")
def test_keys_are_as_ssh_keygen_writes_them(node: Node) -> None:
    public = node.path / "node.key.pub"
    listed = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True).stdout
    assert listed == f"384 {fingerprint(public.read_bytes())} alder (ECDSA)\n"
    derived = subprocess.run(
        ["ssh-keygen", "-yf", node.path / "node.key"], capture_output=True
    ).stdout
    assert derived.split()[:2] == public.read_bytes().split()[:2]


def test_the_node_has_what_it_needs(path: Path, node: Node, site: Path) -> None:
    assert (node.path / "ca.crt").read_bytes() == (path / "server/ca.crt").read_bytes()
    assert Site.open(node.path / "site", "Alder").group == "Alder"
    shutil.rmtree(site)  # it has a copy
    assert "--superlink 127.0.0.1:9443 " in (node.path / "start.sh").read_text()
    assert (
        f"ExecStart={node.path}/start.sh" in (node.path / "pluralllm-supernode.service").read_text()
    )


def test_what_a_site_remembers_of_runs_is_not_copied(
    path: Path, site: Path, tmp_path: Path
) -> None:
    (site / "memory").mkdir()
    (site / "memory/of-a-run").touch()
    node = join(read_invitation(path / INVITATION), site, tmp_path / "node")
    assert not (node.path / "site/memory").exists()


def test_names_and_roles_are_those_of_the_sites(
    path: Path, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    for number, group in enumerate(("Alder", "Dogwood", "Élan 中/..")):
        own = write_site(tiny_survey, group, tmp_path / f"site{number}").survey.path
        node = join(read_invitation(path / INVITATION), own, tmp_path / f"node{number}")
        admit_group(path, node.request)
    assert read_groups(path) == {"alder": "Alder", "dogwood": "Dogwood", "elan": "Élan 中/.."}
    assert list(read_roles(path).values()) == ["train", "evaluation", "evaluation"]


def test_the_commands_say_both_fingerprints(path: Path, site: Path, tmp_path: Path) -> None:
    joined = command("join", path / INVITATION, "--site", site, "--out", tmp_path / "a b $(id)")
    assert joined.exit_code == 0, joined.output
    key = fingerprint((tmp_path / "a b $(id)/node.key.pub").read_bytes())
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", path / "server/ca.crt"],
        capture_output=True,
        text=True,
    )
    assert f"authority: {shown.stdout.strip().partition('=')[2]}\n" in joined.output
    assert f"key:        {key}\n" in joined.output
    request = tmp_path / "a b $(id)/request.json"
    wrong = command("admit", path, request, "--fingerprint", "SHA256:other")
    assert "not the key whose fingerprint you were told" in str(wrong.exception)
    assert read_groups(path) == {}
    admitted = command("admit", path, request, "--fingerprint", key)
    assert admitted.exit_code == 0, admitted.output
    assert f"Alder: admitted, trains, key {key}\n" in admitted.output
    assert "The SuperLink does not run" in admitted.output
    assert read_groups(path) == {"alder": "Alder"}


def test_a_node_is_not_made_over_another(path: Path, node: Node, site: Path) -> None:
    before = (node.path / "node.key").read_bytes()
    with pytest.raises(UserError, match="keys are never overwritten"):
        join(read_invitation(path / INVITATION), site, node.path)
    assert (node.path / "node.key").read_bytes() == before


def test_a_site_of_other_questions_is_refused(path: Path, tmp_path: Path) -> None:
    other = make_survey(tmp_path / "other", questions=31)
    site = write_site(other, "Alder", tmp_path / "site").survey.path
    with pytest.raises(UserError, match="of another questionnaire than the server's"):
        join(read_invitation(path / INVITATION), site, tmp_path / "node")
    assert not (tmp_path / "node").exists()


def test_another_version_is_refused(path: Path, site: Path, node: Node, tmp_path: Path) -> None:
    invitation = replace(read_invitation(path / INVITATION), app="0.0.1")
    with pytest.raises(UserError, match=r"the server has pluralllm_app 0\.0\.1"):
        join(invitation, site, tmp_path / "later")
    with pytest.raises(UserError, match=r"has pluralllm_app '0\.0\.1', and here"):
        admit_group(path, replace(node.request, app="0.0.1"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": "$(touch /tmp/x)"}, "damaged .*neither a DNS name nor an IP"),
        ({"server": "a b"}, "damaged"),
        ({"port": 0}, "damaged"),
        ({"port": "9443"}, "is no invitation"),
        ({"port": None}, "is no invitation"),
        ({"authority": "nothing"}, "damaged"),
        ({"invitation": 2}, "format version 2, this app reads 1: install a newer pluralllm_app"),
        ({"invitation": "x"}, "format version 'x'"),
        ({"more": 1}, "is no invitation"),
    ],
)
def test_a_damaged_invitation_is_refused(
    path: Path, change: dict[str, object], message: str
) -> None:
    file = path / INVITATION
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_invitation(file)


def test_an_invitation_of_a_mere_server_is_refused(path: Path) -> None:
    file = path / INVITATION
    certificate = (path / "server/server.crt").read_text()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"authority": certificate}))
    with pytest.raises(UserError, match="damaged"):
        read_invitation(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b'{"request": 1}'])
def test_a_file_that_is_no_request_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is no request"):
        read_request(file)
    file.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 64 KiB"):
        read_request(file)
    with pytest.raises(UserError, match="cannot read the request"):
        read_request(tmp_path)


def edwards() -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": ""}, "no clean name"),
        ({"group": " Alder"}, "no clean name"),
        ({"group": "A\x1b[31m"}, r"the group 'A\\x1b\[31m', which is no clean name"),
        ({"group": "A\u202eB"}, "no clean name"),
        ({"group": "E\u0301lan"}, "no clean name"),
        ({"questionnaire": "\x1b[31m"}, r"of another questionnaire \(fingerprints '\\x1b\[31m'"),
        ({"key": "ssh-rsa AAAA x"}, "cannot read the key of group 'Alder'"),
        ({"key": edwards()}, "is not an ECDSA key of 384 bits"),
    ],
)
def test_an_odd_request_is_refused(
    path: Path, node: Node, change: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        admit_group(path, replace(node.request, **change))
    assert read_groups(path) == {}


def test_a_group_is_admitted_once(path: Path, node: Node) -> None:
    admit_group(path, node.request)
    with pytest.raises(UserError, match="with this very key: nothing is left to do"):
        admit_group(path, node.request)
    other = replace(node.request, key=other_key())
    with pytest.raises(UserError, match=r"group 'Alder' is in .* `pluralllm deploy remove` first"):
        admit_group(path, other)
    with pytest.raises(UserError, match="has the key of group 'Alder'"):
        admit_group(path, replace(node.request, group="Birch"))
    remove_group(path, "alder")
    assert admit_group(path, other) == "alder"


@pytest.mark.parametrize("alike", ["ALDER", "\uff21lder", "\u00c5lder"])
def test_groups_that_look_alike_are_refused(path: Path, node: Node, alike: str) -> None:
    admit_group(path, node.request)
    with pytest.raises(UserError, match="looks like group 'Alder'"):
        admit_group(path, replace(node.request, group=alike, key=other_key()))


def test_names_of_other_scripts_are_told_apart(path: Path, node: Node) -> None:
    slugs = {
        admit_group(path, replace(node.request, group=name, key=other_key()))
        for name in ("कल", "कुल", "中", "文")
    }
    assert len(slugs) == 4


def test_one_command_at_a_time_changes_the_groups(path: Path, node: Node) -> None:
    with held(path / "server/.lock", "here"):
        for change in (
            lambda: admit_group(path, node.request),
            lambda: remove_group(path, "alder"),
        ):
            with pytest.raises(UserError, match="another command changes the groups"):
                change()


def test_what_a_request_adds_to_its_key_is_not_kept(path: Path, node: Node) -> None:
    odd: Request = replace(node.request, key=node.request.key.strip() + " \x1b[31m more")
    slug = admit_group(path, odd)
    assert (path / "server/nodes" / f"{slug}.pub").read_text() == node.request.key
