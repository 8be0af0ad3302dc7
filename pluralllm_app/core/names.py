"""Names of groups and other short texts: one form for each, and a file name for each."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable


def clean_text(text: str) -> str:
    """Return a text without surrounding spaces and in Unicode form NFC.

    Two names of a group that look the same are then equal, however their accents were encoded.
    """
    return unicodedata.normalize("NFC", text.strip())


def file_slugs(names: Iterable[str]) -> dict[str, str]:
    """Return for each name a slug of a-z, 0-9 and "-" that no other name has.

    >>> file_slugs(["São Tomé", "Peru"])
    {'São Tomé': 'sao-tome', 'Peru': 'peru'}
    """
    slugs = {name: _slug(name) for name in names}
    taken = Counter(slugs.values())
    return {
        name: slug
        if slug and taken[slug] == 1
        else f"{slug or 'group'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, slug in slugs.items()
    }


def _slug(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")[:60]
