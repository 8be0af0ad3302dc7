"""The code of this app as it is installed on this machine, and a hash that tells it from another.

The bundle that a deployment's server sends has the same files, so equal hashes mean equal code.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

APP = Path(__file__).resolve().parents[2]
"""The directory of this app: the package and, in a checkout, pyproject.toml."""
PACKAGE = "pluralllm_app"


def code_files(app: Path = APP) -> dict[str, bytes]:
    """The Python files of the package, by their paths in the app."""
    files = (app / PACKAGE).rglob("*.py")
    return {file.relative_to(app).as_posix(): file.read_bytes() for file in files}


def code_hash(files: Mapping[str, bytes]) -> str:
    """The sha256 of a list of files, as `sha256sum` prints it in the order of their paths.

    Args:
        files: contents by path.
    """
    lines = (f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def installed_hash() -> str:
    """The hash of the code on this machine."""
    return code_hash(code_files())
