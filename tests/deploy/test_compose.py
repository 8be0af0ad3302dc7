"""deploy/: the container files say what the rest of the repository says."""

import re

import yaml

from pluralllm_app.settings import read_toml
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


def test_the_image_has_the_torch_of_the_app() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    dependencies = read_toml(ROOT / "pyproject.toml")["project"]["dependencies"]
    [torch] = [name for name in dependencies if name.startswith("torch==")]
    assert f" {torch} " in dockerfile
    for copied in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
