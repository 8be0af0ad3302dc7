"""Names of groups and other short texts: one form for each, and a file name for each."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# What nobody sees: zero-width spaces, byte order marks, soft hyphens, marks of direction. The
# joiners inside emoji and Indian words are not among them.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"))


_APOSTROPHES = str.maketrans("\u2019\u2018\u00b4`", "''''")


def clean_text(text: str) -> str:
    """Return a text in Unicode form NFC, with one space between its words and none around them.

    Two names of a group that look the same are then equal, however their accents were encoded and
    whatever spaces, broken or not, a table has in them.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return " ".join(text.split())


def look(text: str) -> str:
    """What is left of a name without case, width and accents of Latin, Greek and Cyrillic letters.

    Nor does it matter how an apostrophe was typed. Two groups whose names leave the same are told
    apart by nobody who reads a table.

    >>> look("ＰＥＲÚ") == look("Peru")
    True
    """
    decomposed = unicodedata.normalize("NFKD", clean_text(text).translate(_APOSTROPHES))
    return re.sub("[\u0300-\u036f]", "", decomposed).casefold()


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
