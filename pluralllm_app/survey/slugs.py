"""File names for groups, whatever the groups are called."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable


def file_slugs(names: Iterable[str]) -> dict[str, str]:
    """Return a unique file name stem of a-z, 0-9 and "-" for each name."""
    plain = {
        name: re.sub(
            r"[^a-z0-9]+",
            "-",
            unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower(),
        ).strip("-")[:60]
        for name in names
    }
    taken = Counter(plain.values())
    return {
        name: slug
        if slug and taken[slug] == 1
        else f"{slug or 'group'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, slug in plain.items()
    }
