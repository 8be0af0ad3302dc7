"""Texts that may be damaged, but may be honest or published so: people are told, and decide."""

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import unquote_to_bytes

from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.damaged_texts import SUSPECT, damage, decoded, texts_of


def _json(part: str) -> str:
    pairs = part.encode().decode("unicode_escape").encode("utf-16", "surrogatepass")
    return pairs.decode("utf-16", "replace")


def _web(part: str) -> str:
    return unquote_to_bytes(part.replace("=", "%")).decode(errors="replace")


# How other formats write characters, which stay so where a program forgets to read them.
_ESCAPES: dict[str, tuple[re.Pattern[str], Callable[[str], str]]] = {
    "HTML": (re.compile(r"&(?:#\d+|#x[0-9a-fA-F]+|[A-Za-z]{2,8});"), unescape),
    "JSON": (re.compile(r"(?:\\u[0-9a-fA-F]{4})+"), _json),
    "quoted-printable": (re.compile(r"=[C-F][0-9A-F](?:=[89AB][0-9A-F]){1,3}"), _web),
    "web addresses": (re.compile(r"%[C-F][0-9A-F](?:%[89AB][0-9A-F]){1,3}"), _web),
    "Python's bytes": (re.compile(r"^b(['\"]).*\1$"), lambda part: part[2:-1]),
}


# What spreadsheets show where they took a range such as 3-5 or 10-19 for a date.
_MONTHS = "jan|feb|mar|m\u00e4r|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
_DATE = re.compile(
    rf"\d{{1,2}}[-. ]{{1,2}}(?:{_MONTHS})\.?|(?:{_MONTHS})\.?[- ]\d\d|\d{{4}}-\d\d-\d\d 00:00:00",
    re.IGNORECASE,
)


def doubts(survey: SurveyContent) -> list[str]:
    """Return lines on texts that may be damaged, at most one of a kind.

    "Ãœber" may be "Über" in UTF-8 that was read as Windows-1252; so may the end of “IRMÃ”.
    """
    found: dict[str, str] = {}
    for what, text in texts_of(survey):
        if _DATE.fullmatch(text):
            line = f"the {what}, {text!r}, may have been a range of numbers, of which a spreadsheet"
            found.setdefault("date", f"{line} made a date")
        if fault := damage(text):
            found.setdefault("", f"the {what}, {text[:80]!r}, {fault}")
            continue
        for word in text.split(" ") if SUSPECT.search(text) else ():
            meant = decoded(word, "cp1252")
            if meant is not None and SUSPECT.search(word):
                line = f"{word!r} may be {meant!r} in UTF-8 that was read as Windows-1252"
                found.setdefault("Windows-1252", line)
        for kind, (escape, read) in _ESCAPES.items():
            part = escape.search(text)
            if part and read(part[0]) != part[0]:
                line = f"{part[0][:40]!r} may stand for {read(part[0])[:40]!r}, as in {kind}"
                found.setdefault(kind, line)
    return [f"{line}: see that it is right" for line in found.values()]
