"""The encoding of a text that is not in UTF-8, as older programs and spreadsheets write it.

Nothing in a file tells its code page, and a wrong one often gives words that look right: "très" of
Windows-1252 is "trčs" in Windows-1250. So all pages are tried, and those are left out that put
symbols into words, mix scripts, or give letters that no one language has. charset-normalizer then
leaves out what it finds chaotic; its own best guess is chance among similar pages. The text is read
if all pages that are left say the same.
"""

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from charset_normalizer import from_bytes

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.unpacking import open_binary

# Of pages that say the same, the first is named.
CODE_PAGES = {
    "cp1252": "Windows-1252",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1253": "Windows-1253",
    "cp1254": "Windows-1254",
    "cp1255": "Windows-1255",
    "cp1256": "Windows-1256",
    "cp1257": "Windows-1257",
    "iso8859_15": "ISO 8859-15",
    "iso8859_2": "ISO 8859-2",
    "mac_roman": "Mac Roman",
    "cp850": "DOS 850",
    "cp437": "DOS 437",
    "cp852": "DOS 852",
    "cp866": "DOS 866",
    "koi8_r": "KOI8-R",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "shift_jis": "Shift JIS",
    "euc_jp": "EUC-JP",
    "euc_kr": "EUC-KR",
}
# The letters besides those of ASCII with which Latin languages are written.
ALPHABETS = (
    "äöüß",  # German
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíñóúü",  # Spanish
    "àáâãçéêíóôõúü",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "àçèéíïòóúü",  # Catalan
    "áäçèéêëíïóöúü",  # Dutch
    "åäöéàü",  # Swedish
    "æøåéèêòóô",  # Danish, Norwegian
    "äöåšž",  # Finnish
    "áðéíóúýþæö",  # Icelandic
    "âêîôûŵŷ",  # Welsh
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîșțşţ",  # Romanian
    "čćđšž",  # Croatian, Slovenian
    "çë",  # Albanian
    "äöõüšž",  # Estonian
    "āčēģīķļņōŗšūž",  # Latvian
    "ąčęėįšųūž",  # Lithuanian
    "âçğıîöşûü",  # Turkish
)
MOST_BYTES = 2**16  # of words to judge by
FEWEST_WORDS = 10  # by which charset-normalizer may exclude a page
_WORD = re.compile(rb"[^\s,;\"]*[\x80-\xff][^\s,;\"]*")
_SCRIPTS = (
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "HEBREW",
    "ARABIC",
    "HANGUL",
    "HIRAGANA",
    "KATAKANA",
    "CJK",
)
_BOXES = frozenset(map(chr, range(0x2500, 0x25A0)))  # lines of boxes, and their shades
_JAPANESE = {"HIRAGANA", "KATAKANA", "CJK"}


def code_page_of(file: Path) -> tuple[str, str]:
    """Return the code page of a text file that is not in UTF-8, and a word to know it by.

    The word is one that another page would read otherwise; empty where none would.

    Raises:
        SurveyError: it may be read in several ways, or in none that makes sense.
    """
    words = _words(file)
    readings: dict[tuple[str, ...], str] = {}  # what is read -> the first page that reads it so
    for page in CODE_PAGES:
        with suppress(UnicodeDecodeError):
            read = tuple(word.decode(page) for word in words)
            if all(map(_makes_sense, read)):
                readings.setdefault(read, page)
    if not readings:
        raise SurveyError(
            f"{file} is not in UTF-8, and its encoding is not clear: pass --encoding, or save it "
            "as UTF-8"
        )
    differing = [at for at, read in enumerate(zip(*readings, strict=True)) if len({*read}) > 1]

    def only(left: dict[tuple[str, ...], str]) -> tuple[str, str]:
        ((read, page),) = left.items()
        return page, read[differing[0]] if differing else ""

    left = {read: page for read, page in readings.items() if _is_of_one_language(read)}
    # A text in two languages may look like one of a third. Among Latin ones, that of many more
    # files than the others is taken on this ground.
    if len(left) == 1 and ("cp1252" in left.values() or not _letters(next(iter(left)))):
        return only(left)
    left = readings
    if len(readings) > 1 and len(words) >= FEWEST_WORDS:
        matches = from_bytes(b" ".join(words), cp_isolation=list(readings.values()))
        clean = {page for match in matches for page in match.could_be_from_charset}
        left = {read: page for read, page in readings.items() if page in clean}
    if len(left) == 1:
        return only(left)
    shown = ", ".join(
        f"{' '.join(read[at] for at in differing[:3])!r} ({page})"
        for read, page in list(readings.items())[:4]
    )
    raise SurveyError(
        f"{file} is not in UTF-8 and may be read in several ways: {shown}. Pass --encoding with "
        "the right one, or save the file as UTF-8"
    )


def _words(file: Path) -> list[bytes]:
    """Return different words that have more than ASCII, of the whole file if they are few."""
    found: dict[bytes, None] = {}
    size = 0
    with open_binary(file) as lines:
        for line in lines:
            for word in () if line.isascii() else _WORD.findall(line):
                size += 0 if word in found else len(word)
                found[word] = None
            if size > MOST_BYTES:
                break
    return list(found)


def _is_of_one_language(words: Sequence[str]) -> bool:
    """Whether the Latin letters of a text are those of one language."""
    letters = _letters(words)
    return any(letters <= set(alphabet) for alphabet in ALPHABETS)


def _letters(words: Sequence[str]) -> set[str]:
    """Return the small forms of the Latin letters besides those of ASCII."""
    return {
        char
        for char in "".join(words).lower()
        if not char.isascii() and char.islower() and _script(char) == "LATIN"
    }


def _makes_sense(word: str) -> bool:
    """Whether a word has one script, no symbol inside, and no capital after a small letter.

    A wrong code page turns letters into those of other scripts, symbols and capitals.
    """
    script = ""
    for place, char in enumerate(word):
        kind, own = unicodedata.category(char), _script(char)
        letter = bool(own) or (kind[0] in "LM" and kind != "Lm")
        if own and script not in ("", own):
            return False
        script = (own or script) if letter else ""
        if char.isascii():
            continue
        before, after = word[place - 1 : place].isalpha(), word[place + 1 : place + 2].isalpha()
        inside, beside = before and after, before or after
        if (
            kind in ("Cc", "Cf", "Cn", "Co")
            or (inside and not letter and kind != "Pd" and char not in "\u2019·")
            or (beside and (kind in ("Sm", "Sk") or char in _BOXES))
            or (char.isupper() and word[place - 1 : place].islower())
        ):
            return False
    return True


@cache
def _script(char: str) -> str:
    parts = re.split("[ -]", unicodedata.name(char, ""))
    script = next((part for part in parts if part in _SCRIPTS), "")
    return "CJK" if script in _JAPANESE else script
