"""The source tree of this app, and which of its files Flower is given."""

from pathlib import Path

from pluralllm_app.settings_files import read_toml

APP = Path(__file__).resolve().parents[2]
"""The directory of this app: pyproject.toml and the package."""


def app_files(app: Path) -> dict[str, Path]:
    """What the app in a directory ships, by name: its pyproject.toml and its `fab-include`.

    Flower itself looks at every file there, even at those of a virtual environment.
    """
    patterns = read_toml(app / "pyproject.toml")["tool"]["flwr"]["app"]["fab-include"]
    files = [file for pattern in ["pyproject.toml", *patterns] for file in app.glob(pattern)]
    return {file.relative_to(app).as_posix(): file for file in files}
