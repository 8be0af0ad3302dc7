"""Texts that a wrong encoding has damaged, told where one can be sure.

An encoding that was guessed wrongly gives no error: UTF-8 that was read as Windows-1252 has "fÃ¼r"
for "für", and encodings of seven bits, such as ISO-2022-JP, HZ and UTF-7, are ASCII to a reader.
Here are the signs that no honest text has. A question mark in place of a letter is none of them.
"""

import re
from collections.abc import Iterator

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.code_pages import CODE_PAGES, makes_sense

# Not the ends of lines, nor tabs of both kinds and form feeds, which Word and PDF leave in texts.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_LOST = "\ufffd"
# As which UTF-8 is read by mistake. It has no byte from 80 to BF but after one from C2 to F4.
_MISTAKEN = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "mac_roman", "cp850", "cp437")
SUSPECT = re.compile(
    "|".join(
        f"[{re.escape(bytes(range(0xC2, 0xF5)).decode(page, 'ignore'))}]"
        f"[{re.escape(bytes(range(0x80, 0xC0)).decode(page, 'ignore'))}]"
        for page in _MISTAKEN
    )
)
# How quotation marks, dashes and signs of money begin that were read as Windows-1252.
_PUNCTUATION = re.compile("\u00e2[\u20ac\u201a]")
_SHIFTED = {  # what stands between the signs of encodings that are ASCII without them
    "utf-7": re.compile(r"\+([A-Za-z0-9/+]*)-?"),
    "hz": re.compile(r"~\{(.*?)~\}"),
}
_FEWEST = 2  # places in a survey that make sense in such an encoding, where all of them do
_AGAIN = "export it again as UTF-8"


def damage(text: str) -> str:
    """Return what is wrong with a text and what to do, "" if nothing is.

    The text must be as it was read: cleaning it takes some of the signs away.

    >>> damage("Tee fÃ¼r zwei?").partition(":")[0]
    "has 'fÃ¼r' for 'für', UTF-8 that was read as Windows-1252"
    """
    if text.isascii() and text.isprintable():
        return ""
    if control := _CONTROL.search(text):
        if "\x1b$" in text or "\x0e" in text:
            return (
                "has the signs of ISO-2022-JP, ISO-2022-KR or the like: pass --encoding with the "
                f"right one, or {_AGAIN}"
            )
        if control[0] >= "\x80":
            return (
                f"has the control character U+{ord(control[0]):04X}, as where Windows-1252 or "
                f"UTF-8 is read as Latin-1: {_AGAIN}, or pass another --encoding"
            )
        return f"has the control character U+{ord(control[0]):04X}: remove it, or {_AGAIN}"
    if _LOST in text:
        return f"has U+FFFD, which stands for a character that was lost: {_AGAIN}"
    if SUSPECT.search(text):
        for word in text.split(" "):
            for page, meant in _mistaken(word):
                name = CODE_PAGES[page]
                return (
                    f"has {word!r} for {meant!r}, UTF-8 that was read as {name}: {_AGAIN}, or pass "
                    "another --encoding"
                )
    return ""


def refuse_damaged(survey: SurveyContent, place: str) -> None:
    """Raise SurveyError if an encoding has damaged the texts of a survey, read from `place`.

    Also where only all texts together show it: they are in ASCII, and what stands between signs of
    HZ or UTF-7 makes sense wherever there are such signs.
    """
    ascii_only = True
    for what, text in texts_of(survey):
        if fault := damage(text):
            raise SurveyError(f"{place}: the {what}, {text[:80]!r}, {fault}")
        ascii_only &= text.isascii()
    for encoding, shifted in _SHIFTED.items() if ascii_only else ():
        found = [
            (what, text, _places(text, encoding))
            for what, text in texts_of(survey)
            if shifted.search(text)
        ]
        known = [places for *_, places in found if places is not None]
        if len(known) == len(found) and sum(known) >= _FEWEST:
            what, text = next((what, text) for what, text, places in found if places)
            read = text.encode().decode(encoding)
            raise SurveyError(
                f"{place}: the {what}, {text[:80]!r}, is {read[:80]!r} in {encoding.upper()}: pass "
                f"--encoding {encoding}, or {_AGAIN}"
            )


def refuse_hidden(survey: SurveyContent, place: str) -> None:
    """Raise SurveyError if a text of a survey, read from `place`, has what no honest one has."""
    for what, text in texts_of(survey):
        if found := hidden(text):
            raise SurveyError(
                f"{place}: the {what}, {text[:80]!r}, has the hidden character {found}: remove it"
            )


def texts_of(survey: SurveyContent) -> Iterator[tuple[str, str]]:
    """Yield what each text of a survey is, and the text."""
    questions = survey.questions
    for id_, text, options in zip(questions.ids, questions.texts, questions.options, strict=True):
        yield "id of a question", id_
        yield f"text of question {id_!r}", text
        yield from ((f"option of question {id_!r}", option) for option in options)
    yield from (("name of a group", group) for group in survey.answers.groups)
    yield from ((f"description of group {name!r}", o) for name, o in survey.descriptions.items())


def _mistaken(word: str) -> Iterator[tuple[str, str]]:
    """Yield the pages as which a word in UTF-8 was read, with what it was meant to be."""
    if not SUSPECT.search(word) or (makes_sense(word) and not _PUNCTUATION.search(word)):
        return
    for page in _MISTAKEN:
        meant = decoded(word, page)
        if meant is not None:
            yield from ((page, more) for _, more in _mistaken(meant))  # what was read so twice
            if makes_sense(meant):
                yield page, meant


def decoded(word: str, page: str) -> str | None:
    """Return a word in UTF-8 that was read as `page`; None if it was not."""
    try:
        return word.encode(page).decode()
    except UnicodeError:
        return None


def _places(text: str, encoding: str) -> int | None:
    """Return how many places of a text are above ASCII in `encoding`; None: it is not in it."""
    places = 0
    try:
        for part in _SHIFTED[encoding].finditer(text):
            read = part[0].encode().decode(encoding)
            # "18+" has no letters after its sign. In HZ, rare characters alone have small ones.
            if not read or not read.isprintable() or (encoding == "hz" and part[1][::2].islower()):
                return None
            places += not read.isascii()
        words = text.encode().decode(encoding).split()
    except UnicodeDecodeError:
        return None
    return places if encoding == "hz" or all(map(makes_sense, words)) else None
