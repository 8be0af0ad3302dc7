"""What the pages refer to is there."""

import re
import tomllib
from pathlib import Path

import pytest

import pluralllm_app
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = {link for link in links if "://" not in link and not (page.parent / link).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_named_in_pages_exist(page: Path) -> None:
    """By their path in the repository, or within the package."""
    modules = set(re.findall(r"(?<![\w./])\w[\w/]*/\w+\.py\b", page.read_text("utf-8")))
    places = (ROOT, ROOT / "pluralllm_app")
    assert {name for name in modules if not any((at / name).exists() for at in places)} == set()


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == pluralllm_app.__version__
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {pluralllm_app.__version__}\n" in citation
