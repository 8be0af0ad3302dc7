"""A node whose SuperLink is on another machine calls it through its proxy."""

import socket
from pathlib import Path

import psutil
import pytest

from tests.conftest import make_survey
from tests.support.connect_proxy import connect_proxy
from tests.support.deployment import Deployment
from tests.support.waiting import wait_until


@pytest.mark.engine
def test_a_node_passes_its_proxy_to_another_machine(tmp_path: Path) -> None:
    found = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    others = [
        entry.address
        for entry in found
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not others:
        pytest.skip("this machine has no address that could be another's")
    survey = make_survey(tmp_path / "survey")
    with (
        connect_proxy() as (proxy, asked),
        Deployment(tmp_path / "there", survey, ["Alder"], [others[0], "127.0.0.1"]) as deployment,
    ):
        deployment.start_superlink()
        deployment.register()
        script = deployment.node_dir("Alder") / "start.sh"
        deployment.start("alder", [script], {"https_proxy": proxy})
        wait_until(lambda: deployment.online() == 1)
        said = f"The SuperLink is called through the proxy https_proxy={proxy}."
        assert said in deployment.log("alder")
        assert set(asked) == {f"{others[0]}:{deployment.port}"}
