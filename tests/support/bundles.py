"""Bundles of the app that a hostile server might send, made of the true one."""

import stat
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

CLIENT = "pluralllm_app/client_app.py"
PYPROJECT = "pyproject.toml"
ENTRY = b'"pluralllm_app.client_app:app"'
BOMB_BYTES = 24 * 2**20


def members(bundle: bytes) -> dict[str, bytes]:
    """The files in a bundle, by name."""
    with ZipFile(BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(*files: tuple[str | ZipInfo, bytes], method: int = ZIP_STORED) -> bytes:
    """An archive of these entries, one after the other."""
    out = BytesIO()
    with warnings.catch_warnings(), ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


def changed(files: Mapping[str, bytes], method: int = ZIP_STORED) -> bytes:
    """The files again, packed."""
    return packed(*files.items(), method=method)


def hostile(bundle: bytes, marker: Path) -> dict[str, tuple[bytes, str]]:
    """Bundles whose code would write a file `marker`, by name, each with what a refusal names."""
    own = members(bundle)
    evil = f"open({str(marker)!r}, 'w')\n".encode()
    client = own[CLIENT]
    link = ZipInfo(CLIENT)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    link.create_system = 3
    entry = own | {
        PYPROJECT: own[PYPROJECT].replace(ENTRY, b'"evil:app"'),
        "evil.py": evil + client,
    }
    assert b'"evil:app"' in entry[PYPROJECT]
    zeros = b"#" * BOMB_BYTES
    return {
        "changed file": (changed(own | {CLIENT: evil + client}), f"{CLIENT} differs"),
        "same length": (changed(own | {CLIENT: _same_length(client)}), f"{CLIENT} differs"),
        "added file": (
            changed(own | {"pluralllm_app/evil.py": evil}),
            "pluralllm_app/evil.py is not in the node's",
        ),
        "file left out": (
            changed({name: file for name, file in own.items() if name != CLIENT}),
            f"{CLIENT} is missing",
        ),
        "entry point": (changed(entry), "pyproject.toml differs"),
        "another default": (
            changed(own | {PYPROJECT: own[PYPROJECT].replace(b"rounds = 60", b"rounds = 61")}),
            "pyproject.toml differs",
        ),
        "symlink": (
            packed(*(own | {CLIENT: b""}).items(), (link, b"/etc/passwd")),
            f"{CLIENT} differs",
        ),
        "path upwards": (
            changed(own | {"../../evil.py": evil}),
            "../../evil.py is not in the node's",
        ),
        "absolute path": (changed(own | {"/tmp/evil.py": evil}), "/tmp/evil.py is not in"),
        "twice": (
            packed(*own.items(), (CLIENT, evil + client)),
            f"{CLIENT} is there twice",
        ),
        "bomb": (changed(own | {CLIENT: zeros}, ZIP_DEFLATED), f"{CLIENT} differs"),
        "bomb of another name": (
            changed(own | {"zeros.py": zeros}, ZIP_DEFLATED),
            "zeros.py is not in",
        ),
        "bomb that lies about its length": (_lying(own, zeros), "its bundle cannot be read"),
        "bomb in bzip2": (packed((CLIENT, client), method=ZIP_BZIP2), f"{CLIENT} differs"),
        "large": (bundle * 5, "its bundle has"),
        "no archive": (b"no archive", "its bundle cannot be read"),
        "escape in a name": (changed(own | {"\x1b]0;x\x07.py": evil}), "'\\x1b]0;x\\x07.py' is"),
    }


def _same_length(content: bytes) -> bytes:
    return content.replace(b"def describe(", b"def Describe(")


def _lying(own: Mapping[str, bytes], zeros: bytes) -> bytes:
    """A file of many bytes that is said to have as many as the node's own."""
    archive = changed(dict(own) | {CLIENT: zeros}, ZIP_DEFLATED)
    true, said = (len(content).to_bytes(4, "little") for content in (zeros, own[CLIENT]))
    crc = zlib.crc32(zeros).to_bytes(4, "little")
    assert archive.count(crc) == 2
    return archive.replace(true, said)
