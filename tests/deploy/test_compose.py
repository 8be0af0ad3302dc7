"""deploy/: the container files say what the rest of the repository says."""

import inspect
import re

import yaml

from pluralllm_app.cli.deploy import init_command
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def test_compose_starts_the_scripts() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"superlink", "supernode"}
    for service in services.values():
        assert service["command"][0].endswith("/start.sh")
        assert service["read_only"]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert "ports" not in services["supernode"]


def test_the_port_is_that_of_init() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    default = inspect.signature(init_command).parameters["port"].default
    port = f"${{PLURALLLM_PORT:-{default}}}"
    assert compose["services"]["superlink"]["ports"] == [f"{port}:{port}"]


def test_the_user_of_the_image_is_the_one_that_owns_the_directories() -> None:
    [user] = re.findall(r"^USER (\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert f"--uid {user} " in (DEPLOY / "Dockerfile").read_text()
    assert f"uid {user}," in (DEPLOY / "compose.yaml").read_text()


def test_image_and_page_install_the_tested_versions() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for text in (dockerfile, (ROOT / "docs" / "deployment.md").read_text()):
        assert " --constraint constraints.txt --editable '.[federation]'" in text
    assert "!constraints.txt\n" in (DEPLOY / "Dockerfile.dockerignore").read_text()
    for copied in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
