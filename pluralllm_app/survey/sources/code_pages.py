"""The encoding of a text that is not in UTF-8, as older programs and spreadsheets write it.

Nothing in a file tells its code page, and a wrong one often gives words that look right: "très" of
Windows-1252 is "trčs" in Windows-1250. So all pages are tried, and those are left out that put
symbols into words, mix scripts, or give a word the letters of no one language. Among the others a
page is taken where common words of the text are of the language that the page gives its letters
of, or where it needs one language and all others need three: letters alone are no evidence between
one language and two, since German and Czech names together have the letters of Catalan. Else the
user has to say. charset-normalizer leaves out what it finds chaotic among scripts other than Latin.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from itertools import combinations
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
# The letters besides those of ASCII with which Latin languages are written, and common words that
# few of the other languages have.
LANGUAGES = {
    "German": ("äöüß", "der die das und ist nicht für mit auf ein eine sie ich oder sehr ja nein"),
    "French": (
        "àâæçéèêëîïôœùûüÿ",
        "le les des du et est pas pour dans une vous plus sur avec très oui aux être sont qui",
    ),
    "Spanish": ("áéíñóúü", "el los las del para con una más por muy está sí"),
    "Portuguese": ("àáâãçéêíóôõúü", "os não com uma para mais por dos são muito em sim"),
    "Italian": ("àèéìíîòóùú", "il che di non per sono una della con più molto gli anche nel"),
    "Catalan": ("àçèéíïòóúü", "els amb per una molt més dels són és"),
    "Dutch": ("áäçèéêëíïóöúü", "het een van niet voor zijn met dat wel zeer ook"),
    "Swedish": ("åäöéàü", "och att inte är det som på för med mycket vet"),
    "Danish, Norwegian": ("æøåéèêòóô", "og ikke er det som på til med meget ved jeg"),
    "Finnish": ("äöåšž", "ja ei että ovat hyvin myös kuin"),
    "Icelandic": ("áðéíóúýþæö", "og er ekki að með sem mjög"),
    "Welsh": ("âêîôûŵŷ", "yn mae iawn nid yw"),
    "Albanian": ("çë", "dhe një për është nuk shumë"),
    "Polish": ("ąćęłńóśźż", "nie się jest na do że jak dla bardzo tak czy przez"),
    "Czech": ("áčďéěíňóřšťúůýž", "není že jak pro které jsem velmi ano ale být jste jsou"),
    "Slovak": ("áäčďéíĺľňóôŕšťúýž", "nie že ako pre ktoré veľmi áno ale byť sú"),
    "Hungarian": ("áéíóöőúüű", "az és nem hogy egy van igen vagy nagyon meg"),
    "Romanian": ("ăâîșțşţ", "nu este în pentru cu din sunt foarte mai sau"),
    "Croatian, Slovenian": ("čćđšž", "nije što za vrlo ali su kako ne sem ni ali zelo"),
    "Estonian": ("äöõüšž", "ja ei see väga kas või mitte"),
    "Latvian": ("āčēģīķļņšūž", "un nav ir par ļoti vai"),
    "Lithuanian": ("ąčęėįšųūž", "ir yra kad labai arba"),
    "Turkish": ("âçğıîöşûü", "ve bir bu için çok değil evet hay\u0131r ile"),
}
# Of pages that are made for some languages; a text in others is hardly in them.
LANGUAGES_OF_PAGES = dict.fromkeys(
    ("cp1250", "iso8859_2", "cp852"),
    (
        *("German", "Polish", "Czech", "Slovak", "Hungarian", "Romanian"),
        *("Croatian, Slovenian", "Albanian"),
    ),
) | {"cp1257": ("German", "Polish", "Estonian", "Latvian", "Lithuanian")}
MANY = 3  # languages in one text, which is unlikely where one would do
FEWEST_COMMON = 2  # different common words of a language that a text has to have
MOST_BYTES = 2**16  # of words to judge by
MOST_LINES = 10_000  # whose words of ASCII are looked at
FEWEST_WORDS = 10  # by which charset-normalizer may exclude a page
Reading = tuple[str, ...]
_PLAIN = re.compile(rb"[A-Za-z]+")
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
    words, common = _words(file)
    readings: dict[Reading, str] = {}  # what is read -> the first page that reads it so
    for page in CODE_PAGES:
        with suppress(UnicodeDecodeError):
            read = tuple(word.decode(page) for word in words)
            if all(map(makes_sense, read)):
                readings.setdefault(read, page)
    if not readings:
        raise SurveyError(
            f"{file} is not in UTF-8, and its encoding is not clear: pass --encoding, or save it "
            "as UTF-8"
        )
    differing = [at for at, read in enumerate(zip(*readings, strict=True)) if len({*read}) > 1]
    if taken := _clear(readings, differing, common):
        return readings[taken], taken[differing[0]] if differing else ""
    shown = ", ".join(
        f"{' '.join(read[at] for at in differing[:3])!r} ({page})"
        for read, page in list(readings.items())[:4]
    )
    line = list(words.values())[differing[0]]
    raise SurveyError(
        f"{file} is not in UTF-8, and its line {line} may be read in several ways: {shown}. Pass "
        "--encoding with the right one, or save the file as UTF-8"
    )


def _clear(
    readings: Mapping[Reading, str], differing: Sequence[int], common: Set[str]
) -> Reading | None:
    """Return the reading for which there is evidence; None where there is none, or for several.

    Args:
        readings: each with its page.
        differing: the places of words that are not the same in all of them.
        common: the words of the text that are in ASCII.
    """
    if len(readings) == 1:
        return next(iter(readings))
    needed = {read: _languages_needed(read, page) for read, page in readings.items()}
    plausible = {read: number for read, number in needed.items() if number is not None}
    attested = [read for read in plausible if _is_attested(read, differing, common)]
    if len(attested) == 1:
        return attested[0]
    few = [read for read, number in plausible.items() if number < MANY]
    if len(few) == 1 and plausible[few[0]] == 1 and _is_likely(few[0], readings[few[0]]):
        return few[0]
    words = next(iter(readings))
    if any(map(_letters, plausible)) or len(words) < FEWEST_WORDS:
        return None
    pages = [readings[read] for read in plausible]
    matches = from_bytes(" ".join(words).encode(readings[words]), cp_isolation=pages)
    clean = {page for match in matches for page in match.could_be_from_charset}
    left = [read for read in plausible if readings[read] in clean]
    return left[0] if len(left) == 1 else None


def _words(file: Path) -> tuple[dict[bytes, int], set[str]]:
    """Return different words that have more than ASCII, with their lines, and those of ASCII.

    They are those of the whole file if they are few.
    """
    found: dict[bytes, int] = {}
    plain: set[str] = set()
    size = 0
    with open_binary(file) as lines:
        for number, line in enumerate(lines, 1):
            if number <= MOST_LINES:
                plain.update(word.decode().lower() for word in _PLAIN.findall(line))
            for word in () if line.isascii() else _WORD.findall(line):
                size += 0 if word in found else len(word)
                found.setdefault(word, number)
            if size > MOST_BYTES:
                break
    return found, plain


def _languages_needed(words: Sequence[str], page: str) -> int | None:
    """Return how many languages there must be for every word to be of one, at most MANY.

    None: a word has Latin letters of no one language. Other scripts are one language together.
    """
    sets = {frozenset(_letters([word])) for word in words} - {frozenset()}
    alphabets = {name: set(letters) for name, (letters, _) in LANGUAGES.items()}
    if not all(any(own <= alphabet for alphabet in alphabets.values()) for own in sets):
        return None
    usual = [alphabets[name] for name in LANGUAGES_OF_PAGES.get(page, alphabets)]
    for number in range(1, MANY):
        for chosen in combinations(usual, number):
            if all(any(own <= alphabet for alphabet in chosen) for own in sets):
                return number
    return MANY


def _is_likely(words: Reading, page: str) -> bool:
    """Whether a page is that of many more files than others of its script."""
    return page == "cp1252" or not _letters(words)


def _is_attested(words: Reading, differing: Sequence[int], common: Set[str]) -> bool:
    """Whether a language of which the text has common words has the letters that are in doubt."""
    letters = _letters([words[at] for at in differing])
    parts = {part for word in words for part in re.findall(r"\w+", word.lower())}
    return bool(letters) and any(
        letters <= set(alphabet) and len({*usual.split()} & (common | parts)) >= FEWEST_COMMON
        for alphabet, usual in LANGUAGES.values()
    )


def _letters(words: Sequence[str]) -> set[str]:
    """Return the small forms of the Latin letters besides those of ASCII."""
    return {
        char
        for char in "".join(words).lower()
        if not char.isascii() and char.islower() and _script(char) == "LATIN"
    }


def makes_sense(word: str) -> bool:
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
            or (char in "ªº" and (inside or (place > 1 and word[:place].isalpha())))
        ):
            return False
    return True


@cache
def _script(char: str) -> str:
    parts = re.split("[ -]", unicodedata.name(char, ""))
    script = next((part for part in parts if part in _SCRIPTS), "")
    return "CJK" if script in _JAPANESE else script
