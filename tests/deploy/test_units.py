"""systemd units: that systemd accepts them, and what they leave open."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pluralllm_app.deploy import units

NORTH = Path("/opt/pluralllm/north")
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")


def test_units_wait_before_a_restart(made: Path) -> None:
    found = sorted(made.rglob("*.service"))
    assert len(found) == 4
    for file in found:
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(file.read_text())
        service = unit["Service"]
        assert service["Restart"] == "always"
        assert int(service["RestartSec"]) >= 60
        assert service["ProtectSystem"] == "strict"
        assert service["NoNewPrivileges"] == service["PrivateTmp"] == "yes"
        assert re.fullmatch(r"\d+G", service["MemoryMax"])
        assert "SystemCallFilter" in service
        assert (
            service["ExecStart"]
            == f"{service['ReadWritePaths']}/start.sh"
            == f"{file.parent}/start.sh"
        )


@needs_systemd
def test_systemd_accepts_the_units(made: Path, tmp_path: Path) -> None:
    for file in made.rglob("*.service"):
        there = tmp_path / file.name  # its ExecStart must be there to be accepted
        there.write_text(file.read_text())
        checked = subprocess.run(
            ["systemd-analyze", "verify", there], capture_output=True, text=True
        )
        assert (checked.returncode, checked.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_little_open(made: Path) -> None:
    """At most 3.0 of 10, where 10 is a service without any limit."""
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    if int(version.stdout.split()[1]) < 250:
        pytest.skip("this systemd looks at no unit that is not loaded")
    for file in made.rglob("*.service"):
        analyse = ["systemd-analyze", "security", "--offline=true", "--threshold=30", file]
        found = subprocess.run(analyse, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout
        assert "Overall exposure" in found.stdout


def test_what_is_left_out_is_explained() -> None:
    assert units.__doc__
    left_out = re.findall(r"^([A-Z]\w+)", units.__doc__.split("why:")[1], re.MULTILINE)
    assert {"MemoryDenyWriteExecute", "PrivateDevices", "PrivateNetwork"} <= set(left_out)
    node = units.supernode_unit(NORTH, "north")
    assert not [name for name in left_out if f"\n{name}=" in node]


def test_a_gpu_is_allowed_to_nodes_alone() -> None:
    assert "DeviceAllow=char-nvidia* rw" in units.supernode_unit(NORTH, "north")
    assert "PrivateDevices=yes" in units.superlink_unit(NORTH)
