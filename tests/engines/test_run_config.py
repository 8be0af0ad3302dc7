"""Settings, files and options become one run config."""

from pathlib import Path

from pluralllm_app.engines.run_config import read_run_config


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("rounds = 7\nseed = 1\n[fedprox]\nmu = 0.5\n")
    config = read_run_config(Path("here"), file, ["seed=2"], tmp_path / "out")
    assert (config["rounds"], config["seed"], config["fedprox.mu"]) == (7, 2, 0.5)
    assert config["survey"] == str(Path("here").resolve())
    assert config["local-steps"] == 6
