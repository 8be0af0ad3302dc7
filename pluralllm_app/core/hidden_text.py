"""Characters that hide what a text says, or drive a terminal: refused or made visible.

Where texts enter, as in `prepare` and what a node says of itself, `hidden` finds what no honest
text has: control characters but ends of lines and tabs (so ESC and C1, which begin the commands of
terminals), directions that override that of letters or that end nowhere, tags, interlinear
annotations and halves of characters. Real surveys hold more that cannot be seen, and it stays: soft
hyphens, byte order marks and zero-width spaces, the joiners of Persian, Indian languages and emoji,
marks of direction, whole embeddings and isolates of Arabic and Hebrew, and the flags of England,
Scotland and Wales, which are made of tags.

Where a text that came from elsewhere is shown, `printable` writes such characters as escapes, and
with them what takes no room and shapes nothing, so that two texts that differ never look alike.
That is done in few places: `core.terminal` for what commands print, `log_errors_plainly` for logs,
`report.page` for pages.
"""

import re

_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
_NEVER = (
    "\x00-\x08\x0e-\x1f\x7f-\x9f\u202d\u202e\u206a-\u206f\ufff9-\ufffb\U000e0000-\U000e007f"
    "\ud800-\udfff"
)
_HIDDEN = re.compile(f"{_FLAG}|([{_NEVER}])")
_UNSEEN = re.compile(f"{_FLAG}|([{_NEVER}\x0b-\x0d\u180e\u200b\u2060-\u2064\ufeff])")
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_WHOLE = re.compile(
    "[\u202a\u202b]([^\u202a-\u202e\u2066-\u2069\n]*)\u202c"
    "|[\u2066-\u2068]([^\u202a-\u202e\u2066-\u2069\n]*)\u2069"
)


def hidden(text: str) -> str:
    r"""What a text has that no honest one has, "" if nothing.

    >>> hidden("a\x1b[31m")
    'U+001B'
    """
    if text.isascii() and text.isprintable():
        return ""
    for found in _HIDDEN.finditer(text):
        if found[1]:
            return f"U+{ord(found[1]):04X}"
    return f"U+{ord(stray[0]):04X}" if (stray := _stray(text)) else ""


def printable(text: str) -> str:
    r"""A text with an escape for each character that hides something, but ends of lines and tabs.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    text = _UNSEEN.sub(lambda found: _escape(found[1]) if found[1] else found[0], text)
    if _stray(text):
        text = _DIRECTIONS.sub(lambda found: _escape(found[0]), text)
    return text


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _stray(text: str) -> str:
    """Signs of direction that are not the two ends of something in one line."""
    while (inner := _WHOLE.sub(r"\1\2", text)) != text:
        text = inner
    return "".join(_DIRECTIONS.findall(text))
