"""Start scripts, and what one tells its node."""

import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args

from pluralllm_app.deploy.groups import read_groups
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.conftest import ROOT, make_survey
from tests.deploy.conftest import GROUPS, ODD
from tests.support.deployment import deployed

pytestmark = pytest.mark.slow


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
    tmp_path: Path,
    tiny_survey: PreparedSurvey,
    servers: list[str],
    bound: str,
    nodes: str,
    submitters: str,
) -> None:
    path = deployed(tmp_path / "there", tiny_survey, ["Alder"], servers)
    assert f"--host {bound} --port 9443" in (path / "server/start.sh").read_text()
    assert f"--superlink {nodes}:9443 " in (path / "nodes/alder/start.sh").read_text()
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
    path = f"{tmp_path}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "PYTHONPATH": str(ROOT)}


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
    path = deployed(tmp_path / "there", tiny_survey, ["Alder"], ["a"]) / "nodes/alder"
    (path / "site").rename(path / name)
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
    there = deployed(tmp_path / "there", survey, [group], ["a"])
    [slug] = read_groups(there)
    path = there / "nodes" / slug
    told = node_config(path / "start.sh", environment)
    assert told == {"group": group, "site": str(path / "site")}


def test_the_node_is_told_its_device(
    tmp_path: Path, tiny_survey: PreparedSurvey, environment: dict[str, str]
) -> None:
    path = deployed(tmp_path / "there", tiny_survey, ["Alder"], ["a"]) / "nodes/alder"
    site = {"group": "Alder", "site": str(path / "site")}
    for device, config in (("cuda:1", {"device": "cuda:1"}), ("", {})):
        given = environment | {"PLURALLLM_DEVICE": device}
        assert node_config(path / "start.sh", given) == site | config


def test_a_node_without_its_site_says_so(
    tmp_path: Path, tiny_survey: PreparedSurvey, environment: dict[str, str]
) -> None:
    path = deployed(tmp_path / "there", tiny_survey, ["Alder"], ["a"]) / "nodes/alder"
    site = path / "site"
    shutil.rmtree(site)

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
    assert "node.key, which `pluralllm deploy join` wrote: restore it" in fails(environment)
