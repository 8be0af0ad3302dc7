"""The demo survey is made once, and no other is overwritten."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pluralllm_app.engines import demo as demo_module
from pluralllm_app.engines.demo import demo_survey
from pluralllm_app.engines.launch import run
from pluralllm_app.errors import SettingsError, UserError
from pluralllm_app.survey.demo import demo_name
from pluralllm_app.survey.prepare import prepare


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo belongs; nothing is there."""
    monkeypatch.setattr(demo_module, "DEMO", tmp_path / "data" / "demo")
    return tmp_path / "data" / "demo"


QUIET = Console(quiet=True)


def test_the_demo_is_made_once(demo: Path) -> None:
    assert demo_survey(QUIET) == demo
    before = {file: (file.stat().st_ino, file.read_bytes()) for file in demo.glob("**/*.*")}
    assert len(before) == 33
    assert demo_survey(QUIET) == demo
    assert before == {file: (file.stat().st_ino, file.read_bytes()) for file in demo.glob("**/*.*")}
    assert list(demo.parent.iterdir()) == [demo]


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"seed": 1}, {"evaluation_fraction": 0.5}])
def test_another_demo_is_not_overwritten(demo: Path, other: dict[str, Any]) -> None:
    prepare("demo", demo, console=QUIET, **other)
    before = {file: file.read_bytes() for file in demo.glob("**/*.*")}
    with pytest.raises(UserError, match="not the built-in demo survey: give it as --surv"):
        demo_survey(QUIET)
    assert before == {file: file.read_bytes() for file in demo.glob("**/*.*")}
    assert list(demo.parent.iterdir()) == [demo]


@pytest.mark.parametrize(
    "mistake", ["rounds=none", "strategy=fedavgg", "strategy=fedprox fedprox.mu=-1"]
)
def test_settings_are_checked_before_the_demo_is_made(demo: Path, mistake: str) -> None:
    with pytest.raises(SettingsError):
        run(None, None, [mistake], None, None, None, QUIET)
    assert not demo.parent.exists()


def test_where_the_app_is_another_users_the_demo_is_in_the_cache(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module.os, "access", lambda path, mode: path != tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = demo_survey(QUIET)
    assert found == tmp_path / "cache" / "pluralllm" / demo_name()
    before = {file: file.stat().st_ino for file in found.glob("**/*.*")}
    assert len(before) == 33
    assert demo_survey(QUIET) == found
    assert before == {file: file.stat().st_ino for file in found.glob("**/*.*")}
    assert not demo.parent.exists()
