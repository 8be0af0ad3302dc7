"""An embedder that needs no model: it hashes words, parts of words, and signs.

It knows words by their spelling only. That is enough for the demo and for tests; on real surveys a
transformers model serves far better.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from pluralllm_app.core.segments import Doubles, Floats, Halves
from pluralllm_app.survey.content import Questions

WORD_WEIGHT, PAIR_WEIGHT, TRIGRAM_WEIGHT = 1.0, 0.7, 0.25

# Signs by Unicode category: symbols and emoji, marks such as vowels of Indian scripts, and what the
# fonts of spreadsheets draw as symbols. Punctuation has only these:
_SIGN_CATEGORIES = ("S", "M", "Cn", "Co")
_SIGNS = frozenset("%‰#&@*/\\†‡§¶")
_MINUS = re.compile(r"^(\W*?)[-\u2010\u2011\u2013](?=[.,]?\d)")  # "-1", but not "5-10"


class HashingEmbedder:
    """Hashes a text's words, pairs of words, character trigrams and signs into signed buckets.

    Question and option each fill one half of the embedding, and each half has length 1. In one
    common bag of n-grams, a long question would drown a short option.
    """

    name = "hashing"
    template = None

    def __init__(self, dim: int = 64) -> None:
        """Make an embedder of an even dimension `dim`."""
        self.dim = dim

    def embed(self, questions: Questions, console: Console, unfinished: Path) -> Halves:
        """Return float16 [rows, dim], one row for each option."""
        texts = _hashed(questions.texts, self.dim // 2)
        options = _hashed([text for texts in questions.options for text in texts], self.dim // 2)
        rows = np.hstack([np.repeat(texts, questions.counts, axis=0), options])
        return rows.astype(np.float16)

    def describe(self, texts: Sequence[str]) -> Floats:
        """Return float32 [texts, dim], of length 1: a text that stands alone fills both halves."""
        return _hashed(texts, self.dim).astype(np.float32)


def _features(text: str) -> Iterator[tuple[str, float]]:
    words = re.findall(r"\w+", text.casefold())
    for word in words:
        yield word, WORD_WEIGHT
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield padded[start : start + 3], TRIGRAM_WEIGHT
    for pair in pairwise(words):
        yield " ".join(pair), PAIR_WEIGHT
    for sign in _signs(text.casefold()):
        # With what no word holds in front, so that a sign is never taken for a word.
        yield f"\0{sign}", WORD_WEIGHT


def _signs(text: str) -> Iterator[str]:
    """Yield the signs of a text, and each token with signs as a whole.

    Without them, "> 50 %" and "< 50 %" would be the same text. Punctuation is no sign, unless a
    text has nothing else.

    >>> list(_signs("c++, or >5 %?"))
    ['++', 'c++', '>', '>5', '%']
    """
    found = False
    for token in text.split():
        if token.isalnum():
            found = True
            continue
        token = _MINUS.sub("\\1\N{MINUS SIGN}", token)
        signs = "".join(char if _is_sign(char) else " " for char in token).split()
        whole = "".join(char for char in token if char.isalnum() or _is_sign(char))
        found = found or bool(whole)
        yield from signs
        if signs and whole != signs[0]:
            yield whole
    if not found:
        yield from text.split()


@cache
def _is_sign(char: str) -> bool:
    return char in _SIGNS or unicodedata.category(char).startswith(_SIGN_CATEGORIES)


def _hashed(texts: Sequence[str], dim: int) -> Doubles:
    """Return [texts, dim] rows of length 1; an empty text is a row of zeros."""
    slots: dict[str, tuple[int, float]] = {}
    unique = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    flat, weights = [], []
    for text, row in unique.items():
        for feature, weight in _features(text):
            if feature not in slots:
                slots[feature] = _slot(feature, dim)
            column, sign = slots[feature]
            flat.append(row * dim + column)
            weights.append(sign * weight)
    counts = np.bincount(flat, weights, minlength=len(unique) * dim)
    rows: Doubles = counts.reshape(len(unique), dim).astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return rows[[unique[text] for text in texts]]


def _slot(feature: str, dim: int) -> tuple[int, float]:
    """Return a feature's bucket and sign, the same in every process."""
    number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")
    return (number >> 1) % dim, 1.0 if number & 1 else -1.0
