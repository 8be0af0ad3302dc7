"""What `pluralllm deploy init` writes: keys, their modes, scripts, units."""

import configparser
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from flwr.common.config import parse_config_args
from typer.testing import CliRunner

from pluralllm_app.cli.main import app
from pluralllm_app.core.locks import held
from pluralllm_app.deploy import keys
from pluralllm_app.deploy.keys import fingerprint, server_names
from pluralllm_app.deploy.layout import add_group, initialise, read_groups, remove_group, renew
from pluralllm_app.errors import UserError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.conftest import make_survey

ODD = "Élan 中/.. $(touch /tmp/x); `id` %h \"quoted\" 'twice' \\"
GROUPS = ["Alder", "Birch", ODD]
SERVERS = ["Flower.example.org", "192.0.2.7"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initialise(tmp_path_factory.mktemp("deploy") / "there", SERVERS, GROUPS, 9443).path


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


def test_groups_are_called_as_surveys_call_them(tmp_path: Path) -> None:
    deployment = initialise(tmp_path / "there", SERVERS, [" North ", "E\u0301lan"], 9443)
    expected = {"north": "North", "elan": "\u00c9lan"}
    assert deployment.groups == read_groups(deployment.path) == expected


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
        (["https://flower.example.org"], ["A"], 9443, "no DNS name or IP address"),
        (["flower.example.org:9443"], ["A"], 9443, "no DNS name or IP address"),
        (["$(id)"], ["A"], 9443, "no DNS name or IP address"),
        (["fe80::1%$(id)"], ["A"], 9443, "no DNS name or IP address"),
        (["-x"], ["A"], 9443, "no DNS name or IP address"),
        (["a", "192.0.2.7", "2001:db8::1"], ["A"], 9443, "IPv4 or on IPv6, not on both"),
        (["::1", "127.0.0.1"], ["A"], 9443, "IPv4 or on IPv6, not on both"),
        ([], ["A"], 9443, "at least one --server"),
        (["a"], [], 9443, "at least one --server"),
        (["a"], ["A", "B", "A"], 9443, "group 'A' is given twice"),
        (["a"], ["North", " North "], 9443, "group 'North' is given twice"),
        (["a"], ["\u00c9lan", "E\u0301lan"], 9443, "group '\u00c9lan' is given twice"),
        (["a"], [" "], 9443, "has no name"),
        (["a"], ["A\nB"], 9443, "has a line break or a control character"),
        (["a"], ["\x1b[31mA"], 9443, "has a line break or a control character"),
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


def test_odd_names_are_in_no_script_or_unit(made: Path) -> None:
    slugs = read_groups(made)
    assert list(slugs.values()) == GROUPS
    assert all(re.fullmatch("[a-z0-9-]+", slug) for slug in slugs)
    for file in [*made.rglob("*.sh"), *made.rglob("*.service")]:
        assert not re.search('[$]\\(touch|"quoted|%|中|É', file.read_text())


def test_scripts_are_valid_and_name_what_they_need(made: Path) -> None:
    found = sorted(made.rglob("start.sh"))
    assert len(found) == 4
    for script in found:
        subprocess.run(["bash", "-n", script], check=True)
        subprocess.run(["sh", "-n", script], check=True)
        assert script.stat().st_mode & stat.S_IXUSR
    server = (made / "server/start.sh").read_text()
    for flag in ("--enable-supernode-auth", "--disable-runtime-dependency-installation"):
        assert flag in server
    node = (made / "nodes/alder/start.sh").read_text()
    assert "--superlink flower.example.org:9443 " in node
    connection = tomllib.loads((made / "flwr-home/config.toml").read_text())["superlink"]
    assert connection["pluralllm"] == {
        "address": "127.0.0.1:9443",
        "root-certificates": str(made / "server/ca.crt"),
    }


@pytest.mark.parametrize(
    ("servers", "bound", "nodes", "submitters"),
    [
        (["flower.example.org"], "0.0.0.0", "flower.example.org", "127.0.0.1"),
        (["127.0.0.1", "localhost"], "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        (["127.0.0.1", "192.0.2.7"], "0.0.0.0", "127.0.0.1", "127.0.0.1"),
        (["[2001:db8::1]"], "::", "[2001:db8::1]", "[::1]"),
        (["::1"], "::1", "[::1]", "[::1]"),
        (["a.example.org", "2001:db8::1"], "::", "a.example.org", "[::1]"),
        (["localhost", "::1"], "::1", "localhost", "[::1]"),
    ],
)
def test_addresses(
    tmp_path: Path, servers: list[str], bound: str, nodes: str, submitters: str
) -> None:
    path = initialise(tmp_path / "there", servers, ["A"], 9443).path
    assert f"--host {bound} --port 9443" in (path / "server/start.sh").read_text()
    assert f"--superlink {nodes}:9443 " in (path / "nodes/a/start.sh").read_text()
    assert f'address = "{submitters}:9443"' in (path / "flwr-home/config.toml").read_text()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose python3 prints a SuperNode's last argument, the node config."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python3"
    fake.write_text(
        f"""#!/bin/sh
case "$*" in
    *deploy.supernode*) for last; do :; done; printf %s "$last" ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
    )
    fake.chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"}


def node_config(script: Path, environment: dict[str, str], cwd: Path | None = None) -> Any:
    """What a start script tells the SuperNode, as Flower reads it."""
    run = subprocess.run([script], env=environment, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    calling, config = run.stdout.splitlines()
    assert calling.startswith("calling the SuperLink at a:9443")
    return parse_config_args([config])


@pytest.mark.parametrize("name", ["site", "a b'c $(id) é=1 # x", 'a"b\\c'])
def test_the_node_is_told_its_site(
    tmp_path: Path, tiny_survey: PreparedSurvey, environment: dict[str, str], name: str
) -> None:
    path = initialise(tmp_path / "there", ["a"], ["Alder"], 9443).path / "nodes/alder"
    write_site(tiny_survey, "Alder", path / name)
    given = {} if name == "site" else {"PLURALLLM_SITE": name}  # from the caller's directory
    told = node_config(path / "start.sh", environment | given, path)
    assert told == {"group": "Alder", "site": str(path / name)}


@pytest.mark.parametrize(
    "group", [ODD, "中文", "a=1 b='2'", 'x" site="/etc', "🌲 \\u0041 {group}", "$'"]
)
def test_the_node_is_told_its_group(
    tmp_path: Path, environment: dict[str, str], group: str
) -> None:
    survey = make_survey(tmp_path / "survey", train=["Alder", group], evaluation=["Birch"])
    deployment = initialise(tmp_path / "there", ["a"], [group], 9443)
    [slug] = deployment.groups
    path = deployment.path / "nodes" / slug
    write_site(survey, deployment.groups[slug], path / "site")
    told = node_config(path / "start.sh", environment)
    assert told == {"group": deployment.groups[slug], "site": str(path / "site")}


def test_the_node_is_told_its_device(
    tmp_path: Path, tiny_survey: PreparedSurvey, environment: dict[str, str]
) -> None:
    path = initialise(tmp_path / "there", ["a"], ["Alder"], 9443).path / "nodes/alder"
    write_site(tiny_survey, "Alder", path / "site")
    site = {"group": "Alder", "site": str(path / "site")}
    for device, config in (("cuda:1", {"device": "cuda:1"}), ("", {})):
        given = environment | {"PLURALLLM_DEVICE": device}
        assert node_config(path / "start.sh", given) == site | config


def test_a_node_without_its_site_says_so(
    tmp_path: Path, tiny_survey: PreparedSurvey, environment: dict[str, str]
) -> None:
    path = initialise(tmp_path / "there", ["a"], ["Alder"], 9443).path / "nodes/alder"
    site = path / "site"

    def fails(environment: dict[str, str]) -> str:
        run = subprocess.run([path / "start.sh"], env=environment, capture_output=True, text=True)
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        return " ".join(run.stderr.split())

    assert "site is no site, it has no site.json" in fails(environment)
    write_site(tiny_survey, "Birch", site)
    assert "the node is of group 'Alder', its site of group 'Birch'" in fails(environment)
    shutil.rmtree(site)
    write_site(tiny_survey, "Alder", site)
    with (site / "questions.parquet").open("ab") as file:
        file.write(b"x")
    told = fails(environment)
    assert "questions.parquet is not as it was written" in told
    assert f"The directory is {site}" in told
    assert "virtual environment" in fails({"PATH": "/usr/bin:/bin"})
    (path / "node.key").unlink()
    assert "node.key: copy it from" in fails(environment)


def test_a_group_is_added_as_if_it_had_been_there(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    shutil.rmtree(path / "nodes")  # they are on their machines
    slug, key = add_group(path, " \u00c9lan ")
    assert (slug, read_groups(path)[slug]) == ("elan", "\u00c9lan")
    assert list(read_groups(path)) == [*read_groups(made), "elan"]
    added = path / "nodes" / "elan"
    for file in (made / "nodes" / "alder").iterdir():
        own = added / file.name
        assert stat.S_IMODE(own.stat().st_mode) == stat.S_IMODE(file.stat().st_mode)
    assert stat.S_IMODE(added.stat().st_mode) == 0o700
    same = {"alder": "elan", "Alder": r"\U000000c9lan"}
    for name in ("ca.crt", "start.sh", "pluralllm-supernode.service"):
        text = (made / "nodes/alder" / name).read_text()
        assert re.sub("[Aa]lder", lambda own: same[own[0]], text) == (added / name).read_text()
    assert (path / "server/nodes/elan.pub").read_bytes() == key.public
    assert (added / "node.key").read_bytes() == key.private


def test_a_group_is_not_added_twice(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    before = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=r"group 'Alder' is in .* `pluralllm deploy remove` first"):
        add_group(path, "Alder ")
    with pytest.raises(UserError, match="has no name"):
        add_group(path, " ")
    remove_group(path, "alder")
    with pytest.raises(UserError, match=r"nodes/alder is of a node .* move it away"):
        add_group(path, "Alder")
    expected = {*before, path / "server/.lock"} - {path / "server/nodes/alder.pub"}
    assert {*path.rglob("*")} == expected
    (path / "server/ca.crt").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read the certificate .*ca\.crt"):
        add_group(path, "Cedar")
    assert not (path / "nodes/cedar").exists()
    with held(path / "server/.lock", "here"):
        for change in (lambda: add_group(path, "Cedar"), lambda: remove_group(path, "birch")):
            with pytest.raises(UserError, match="another command changes the groups"):
                change()
    (path / "flwr-home/config.toml").write_text("[superlink]")
    with pytest.raises(UserError, match=r"config\.toml must have \[superlink\.pluralllm\]"):
        add_group(path, "Cedar")


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
    with pytest.raises(UserError, match=r"bring it back, or .* --new-authority"):
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


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"a": 1}', '{"../../x": "Alder"}', '{"a": "Alder", "b": "Alder"}'],
)
def test_damaged_groups_are_refused(made: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/groups.json").write_text(content)
    with pytest.raises(UserError, match=r"groups\.json is damaged"):
        read_groups(tmp_path)


def test_units_wait_before_a_restart(made: Path) -> None:
    found = sorted(made.rglob("*.service"))
    assert len(found) == 4
    for file in found:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(file.read_text())
        service = unit["Service"]
        assert service["Restart"] == "always"
        assert int(service["RestartSec"]) >= 60
        assert service["ProtectSystem"] == "strict"
        assert service["ExecStart"] == f"{service['ReadWritePaths']}/start.sh"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_accepts_the_units(made: Path, tmp_path: Path) -> None:
    for file in made.rglob("*.service"):
        there = tmp_path / file.name  # its ExecStart must be there to be accepted
        there.write_text(file.read_text().replace("ExecStart=/opt/pluralllm", f"ExecStart={made}"))
        checked = subprocess.run(
            ["systemd-analyze", "verify", there], capture_output=True, text=True
        )
        assert (checked.returncode, checked.stderr) == (0, "")


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
