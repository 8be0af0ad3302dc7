"""Whether the bundle that a server sends is the app that this machine has installed.

A node runs its own files and none that were sent. What was sent is compared with them as data:
nothing of it is unpacked to a file, imported or run, and no more is read of it than the node's own
files are long.
"""

import stat
import tomllib
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

PYPROJECT = "pyproject.toml"
MANIFEST = ".info/CONTENT"  # Flower's list of the files in a bundle
MOST_TIMES = 4  # the node's own size: a bundle, or the text of its pyproject.toml, may have
_SHOWN = 5  # files that a refusal names
_LONGEST = 100  # characters of a name that a refusal has


def refusal(sent: bytes, own: bytes, own_hash: str) -> str | None:
    """Why a node does not take part with this bundle, in one line; None: it is the node's own app.

    Args:
        sent: a bundle of Flower, as the server sent it.
        own: the bundle that the node makes of its own files.
        own_hash: of the node's code.
    """
    found = differences(sent, own)
    if not found:
        return None
    rest = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"the server's code is not what is installed at this node: {', '.join(found[:_SHOWN])}"
        f"{rest}. A node runs its own code alone, which has the hash {own_hash[:12]}: install the "
        "same version on both machines, so that `pluralllm --version` prints the same there, and "
        "start both again"
    )


def differences(sent: bytes, own: bytes) -> list[str]:
    """What of a bundle is not as in the node's own, a few words for each file; [] for none."""
    if len(sent) > MOST_TIMES * len(own):
        return [f"its bundle has {len(sent)} bytes, the node's {len(own)}"]
    with ZipFile(BytesIO(own)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}
    try:
        with ZipFile(BytesIO(sent)) as archive:
            return list(_differing(archive, files))
    except Exception as error:  # whatever a hostile archive makes the reader raise
        return [f"its bundle cannot be read ({type(error).__name__})"]


def _differing(archive: ZipFile, files: dict[str, bytes]) -> Iterator[str]:
    left = dict(files)
    for entry in archive.infolist():
        if entry.filename == MANIFEST:
            continue
        name = _shown(entry.filename)
        if entry.filename not in files:
            yield f"{name} is not in the node's"
        elif entry.filename not in left:
            yield f"{name} is there twice"
        elif not _is_same(archive, entry, left.pop(entry.filename)):
            yield f"{name} differs"
    yield from (f"{name} is missing" for name in left)


def _is_same(archive: ZipFile, entry: ZipInfo, own: bytes) -> bool:
    # Of other methods than these two, Python unpacks without a bound.
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or not _is_plain(entry):
        return False
    most = len(own) * (MOST_TIMES if entry.filename == PYPROJECT else 1)
    if entry.file_size > most:
        return False
    with archive.open(entry) as file:
        content = file.read(most + 1)
    if entry.filename == PYPROJECT:
        return _app(content) == _app(own)  # versions of what writes TOML differ in the form
    return content == own


def _is_plain(entry: ZipInfo) -> bool:
    mode = entry.external_attr >> 16
    return not entry.is_dir() and (not mode or stat.S_IFMT(mode) in (0, stat.S_IFREG))


def _app(pyproject: bytes) -> tuple[Any, ...]:
    """What Flower reads of it: name, version, entry points and the settings' defaults."""
    content = tomllib.loads(pyproject.decode())
    project = content["project"]
    return project["name"], project["version"], content["tool"]["flwr"]["app"]


def _shown(name: str) -> str:
    """A name that a server chose, without what a terminal would obey."""
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return short if short.isprintable() else repr(short)
