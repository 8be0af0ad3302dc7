"""What a survey calls its embedder: by its content, and where it can be had.

hashing                          an embedder of this app
org/model sha256:0123...         a model on the hub, with the hash of the files that were read
sha256:0123...                   a model in a directory
org/model                        a model on the hub, as earlier versions wrote it
a local model                    a model in a directory, as earlier versions wrote it
"""

_HASH = "sha256:"
_SHOWN = 12  # digits


def full_name(place: str | None, digest: str) -> str:
    """The name of a transformers model.

    Args:
        place: its name on the hub; None: it is in a directory.
        digest: of its files, which begins with "sha256:".
    """
    return digest if place is None else f"{place} {digest}"


def place_of(name: str) -> str | None:
    """The name by which an embedder can be loaded; None where that takes its directory."""
    place, _ = _split(name)
    return place if place and " " not in place else None


def is_same(stated: str, found: str) -> bool:
    """Whether vectors of the embedders with these names compare.

    Files of one content are one model, wherever they are. Where one name has no hash, what they are
    called has to do.
    """
    (place, digest), (other_place, other_digest) = _split(stated), _split(found)
    return digest == other_digest if digest and other_digest else place == other_place


def shown(name: str) -> str:
    """The name with the beginning of its hash alone, to be read."""
    place, digest = _split(name)
    return f"{place} {digest[: len(_HASH) + _SHOWN]}".strip()


def _split(name: str) -> tuple[str, str]:
    place, found, digits = name.rpartition(_HASH)
    return (place.strip(), found + digits) if found else (name, "")
