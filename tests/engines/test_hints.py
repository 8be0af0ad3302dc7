"""What to try after a run has the settings that the run had, as far as the command takes them."""

import re
import shlex
from pathlib import Path

import pytest

from pluralllm_app.engines.hints import changed_settings, next_commands
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.learning.registry import check_learner, check_plain
from pluralllm_app.settings import Settings
from tests.conftest import ROOT

FACTORS, REFINED, PAPER = (
    ROOT / "conf" / f"{name}.toml" for name in ("factors", "refined", "paper")
)


@pytest.mark.parametrize(
    ("config", "overrides", "run", "compare"),
    [
        (None, [], " -c strategy=fedprox", ""),
        (
            FACTORS,
            ["evaluation-context=10", "seed=3 privacy=secure-sum"],
            " -c 'evaluation-context=10 seed=3 privacy=secure-sum predictor=gpo'",
            " -c 'evaluation-context=10 seed=3 privacy=secure-sum'",
        ),
        (
            PAPER,
            ["strategy=fedprox fedprox.mu=0.1"],
            f" --config {PAPER} -c strategy=fedavg",
            f" --config {PAPER} -c 'strategy=fedprox fedprox.mu=0.1'",
        ),
        (REFINED, ["seed=3"], f" --config {REFINED} -c 'seed=3 strategy=fedprox'", " -c seed=3"),
        (
            None,
            ["noise=respondents epsilon=2.0"],
            " -c 'noise=respondents epsilon=2.0 strategy=fedprox'",
            "",
        ),
    ],
)
def test_hints_repeat_the_settings(
    config: Path | None, overrides: list[str], run: str, compare: str
) -> None:
    survey = Path("/data/mine")
    settings = Settings.from_config(read_run_config(survey, config, overrides, None))
    said = next_commands(settings, config, overrides)
    assert said == (
        f"Next, try another way: pluralllm run --survey {survey}{run}, or see what simpler ways "
        f"give: pluralllm compare --survey {survey}{compare}"
    )
    for command, check in (("run", check_learner), ("compare", check_plain)):
        check(_settings_of(said, command))  # each command takes what it is told


def _settings_of(said: str, command: str) -> Settings:
    found = re.search(rf"pluralllm {command} (.*?)(, or see|$)", said)
    assert found
    words = shlex.split(found[1])
    given = dict(zip(words[::2], words[1::2], strict=True))
    config = Path(given["--config"]) if "--config" in given else None
    single = [given["-c"]] if "-c" in given else []
    return Settings.from_config(read_run_config(Path(given["--survey"]), config, single, None))


def test_a_run_that_was_gone_on_with_says_what_it_has_other_than_the_defaults() -> None:
    overrides = ["evaluation-context=10 tracker=tensorboard"]
    run_config = read_run_config(Path("/data/mine"), FACTORS, overrides, None)
    assert changed_settings(run_config) == [
        "rounds=30 predictor=factors train-groups-per-round=0 evaluate-every=1 "
        "evaluation-context=10"
    ]
