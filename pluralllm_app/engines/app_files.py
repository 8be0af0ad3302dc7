"""The source tree of this app, and which of its files Flower is given."""

from pathlib import Path

from pluralllm_app.core.code import APP as APP
from pluralllm_app.errors import UserError
from pluralllm_app.settings_files import read_toml


def app_files(app: Path) -> dict[str, Path]:
    """What the app in a directory ships, by name: its pyproject.toml and its `fab-include`.

    Flower itself looks at every file there, even at those of a virtual environment.
    """
    patterns = read_toml(app / "pyproject.toml")["tool"]["flwr"]["app"]["fab-include"]
    files = [file for pattern in ["pyproject.toml", *patterns] for file in app.glob(pattern)]
    return {file.relative_to(app).as_posix(): file for file in files}


def own_files() -> dict[str, bytes]:
    """What the app that is installed here ships, by name.

    Raises:
        UserError: it has no source tree.
    """
    check_tree()
    return {name: file.read_bytes() for name, file in app_files(APP).items()}


def check_tree() -> None:
    """Raise UserError unless this app is run from its source tree."""
    if not (APP / "pyproject.toml").exists():
        raise UserError(
            f"{APP / 'pyproject.toml'} is missing: Flower needs the app's source tree, so install "
            "it from a checkout with `pip install -e .`"
        )
