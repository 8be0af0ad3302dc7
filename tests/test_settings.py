"""Settings: every mistake is named before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.errors import SettingsError
from pluralllm_app.settings import Scalar, Settings, check_names
from pluralllm_app.settings_files import flatten, parse_overrides, read_defaults, read_toml
from tests.conftest import ROOT

Make = Callable[..., Settings]


def test_defaults_and_presets_are_valid(tmp_path: Path) -> None:
    paths: dict[str, Scalar] = {"survey": str(tmp_path), "out": str(tmp_path / "run")}
    defaults = read_defaults(ROOT / "pyproject.toml")
    Settings.from_config(defaults | paths)
    for preset in sorted((ROOT / "conf").glob("*.toml")):
        values = read_toml(preset)
        check_names(defaults | values, defaults)
        Settings.from_config(defaults | values | paths)


def test_the_paper_preset_is_the_published_protocol() -> None:
    paper = read_toml(ROOT / "conf" / "paper.toml")
    published = {
        "rounds": 100,
        "local-steps": 6,
        "tasks-per-step": 1,
        "context-min": 9,
        "context-max": 90,
        "target-min": 9,
        "target-max": 90,
        "optimizer": "adam",
        "learning-rate": 3e-4,
        "schedule": "cosine",
        "schedule-steps": 100,
        "client-optimizer-state": "keep",
        "evaluate-every": 10,
        "evaluation-context": 20,
        "train-groups-per-round": 0,
        "d-model": 128,
        "emb-depth": 4,
        "dim-feedforward": 128,
        "nhead": 4,
        "num-layers": 6,
    }
    assert published.items() <= paper.items()


def test_values_arrive_under_their_names(make_settings: Make) -> None:
    settings = make_settings({"learning-rate": 1, "fedprox.mu": 0.5})
    assert settings.training.learning_rate == 1.0
    assert isinstance(settings.training.learning_rate, float)
    assert settings.federation.rounds == 2
    assert settings.strategy_options["fedprox.mu"] == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"rounds": 0}, "rounds = 0 must be at least 1"),
        ({"seed": 2**63}, "seed = 9223372036854775808 must be at least 0 and at most"),
        ({"rounds": 2.5}, "rounds = 2.5 must be a whole number"),
        ({"rounds": True}, "rounds = True must be a whole number"),
        ({"learning-rate": "fast"}, "learning-rate = 'fast' must be a number"),
        ({"learning-rate": 0.0}, "learning-rate = 0.0 must be above 0"),
        ({"learning-rate": float("nan")}, "learning-rate = nan must be finite, above 0"),
        ({"learning-rate": float("inf")}, "learning-rate = inf"),
        ({"held-out-fraction": 1.0}, "held-out-fraction = 1.0 must be above 0 and below 1"),
        (
            {"optimizer": "adm"},
            "did you mean 'adam'",
        ),
        ({"precision": "bf16"}, "did you mean 'bfloat16'"),
        ({"context-min": 50}, "context-min = 50 is above context-max = 4"),
        ({"target-min": 50}, "target-min = 50 is above target-max = 4"),
        ({"d-model": 10, "nhead": 4}, "d-model = 10 is not a multiple of nhead = 4"),
        ({"momentum": 0.9}, "momentum is for optimizer = 'sgd'"),
        ({"optimizer": "sgd", "client-optimizer-state": "keep"}, "keeps nothing"),
        ({"schedule": "constant", "schedule-steps": 5}, "schedule-steps is for"),
        ({"train-groups-per-round": 1}, "can never reach min-train-groups = 2"),
        ({"survey": "data/demo"}, "must be an absolute path"),
        ({"roundz": 3}, "unknown setting 'roundz': did you mean 'rounds'"),
    ],
)
def test_mistakes_are_named(make_settings: Make, override: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings(override)
    assert message in str(caught.value)


def test_a_missing_setting_is_named(config: dict[str, Scalar]) -> None:
    del config["rounds"]
    with pytest.raises(SettingsError, match="lacks rounds"):
        Settings.from_config(config)


def test_paths_may_come_from_the_environment(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLURALLLM_OUT", str(tmp_path))
    assert make_settings({"out": ""}).out == tmp_path


def test_a_missing_path_is_named(make_settings: Make) -> None:
    with pytest.raises(SettingsError, match="survey is not set"):
        make_settings({"survey": ""}).path("survey")


def test_overrides_are_toml_or_bare_words() -> None:
    parsed = parse_overrides(["rounds=3 learning-rate=1e-3", "strategy=fedprox fedprox.mu=0.1"])
    assert parsed == {
        "rounds": 3,
        "learning-rate": 1e-3,
        "strategy": "fedprox",
        "fedprox.mu": 0.1,
    }
    assert parse_overrides(["out=\"/a b/c\" survey='/d e'"]) == {"out": "/a b/c", "survey": "/d e"}


@pytest.mark.parametrize("text", ["rounds", "rounds = 3", "=3", "rounds=3 seed"])
def test_malformed_overrides_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write key=value"):
        parse_overrides([text])


@pytest.mark.parametrize("text", ["rounds = ", "rounds = [1, 2]"])
def test_malformed_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        flatten(read_toml(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_toml(tmp_path / "none.toml")
