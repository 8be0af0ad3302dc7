"""Names of questions that a survey lacks, told apart: misspelt ones of it, and really new ones.

A text that differs by letters inside long words is a misspelling, "econmy" for "economy". One with
another word or number asks something else: "Iran" for "Iraq", "2019" for "2018", a "not".
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches

RAREST = 3  # words by which a text is looked up: those that fewest texts have
FEW = 2  # words of a text that may have all of them misspelt


class Spelling:
    """The ids and texts of a survey, to be found by what is nearly one of them."""

    def __init__(self, ids: Sequence[str], texts: Mapping[str, str]) -> None:
        """Prepare to find.

        Args:
            ids: of the questions; "" for none.
            texts: of the questions, by their words with single spaces between.
        """
        self._ids = {id_.casefold(): id_ for id_ in ids if id_}
        self._texts = texts
        self._split = {text: text.split() for text in texts}
        self._having: dict[str, list[str]] = {}  # texts by word
        for text, parts in self._split.items():
            for part in dict.fromkeys(parts):
                self._having.setdefault(part, []).append(text)
        self._short = [text for text, parts in self._split.items() if len(parts) <= FEW]

    def id(self, name: str) -> str | None:
        """The id that is most like a name, None where none is; a name of several words is none."""
        near = [] if " " in name else get_close_matches(name.casefold(), self._ids, n=1)
        return self._ids[near[0]] if near else None

    def text(self, words: str) -> str | None:
        """The text that some words are but for some letters, None where there is none."""
        parts = words.split()
        known = sorted(
            (self._having[part] for part in parts if part in self._having),
            key=lambda found: len(found),
        )
        likely = [text for texts in known[:RAREST] for text in texts]
        for text in likely or self._short:
            if _nearly(parts, self._split[text]):
                return self._texts[text]
        return None


def is_code(name: str) -> bool:
    """Whether a name is hardly a question but an id, like "Q12" and "v_3"."""
    return name.isascii() and " " not in name and any(map(str.isdigit, name))


def _nearly(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two texts are the same but for letters inside of words, or spaces between them."""
    if abs(len(one) - len(other)) > FEW:
        return False
    changes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return all(
        tag == "equal" or _slip("".join(one[start:end]), "".join(other[first:last]))
        for tag, start, end, first, last in changes
    )


def _slip(one: str, other: str) -> bool:
    """Whether a word was mistyped: one letter in 5 to 8, two in longer ones, no digit."""
    longest = max(len(one), len(other))
    if one != other and any(letter.isdigit() for letter in one + other):
        return False
    same = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return longest - sum(block.size for block in same) <= (longest > 4) + (longest > 8)
