"""Text files as people save them: compressed or not, and in whatever encoding."""

import codecs
import io
import json
from pathlib import Path

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.code_pages import CODE_PAGES, code_page_of
from pluralllm_app.survey.sources.unpacking import open_binary

CHUNK = 2**20  # bytes to check at a time


def open_text(file: Path, encoding: str, most: int | None = None) -> io.TextIOWrapper:
    """Open a text file, see `open_binary`; ends of lines stay as they are."""
    return io.TextIOWrapper(open_binary(file, most), encoding, newline="")


def encoding_of(
    file: Path, stated: str | None, notes: list[str], *, of_several: bool = False
) -> str:
    """Return the encoding of a text file.

    Args:
        file: a text that begins with two characters of ASCII, as names of columns and JSON do.
        stated: what the user says that it is.
        notes: where to add what was found, if it is not UTF-8.
        of_several: whether `stated` is said of several files. One of them may be in Unicode all the
            same.

    Raises:
        SurveyError: `stated` is no encoding, or the text may be read in two ways.
    """
    if stated is not None:
        _check_encoding(stated)
    if stated is not None and not (of_several and _is_unicode(file)):
        notes.append(CODE_PAGES.get(codecs.lookup(stated).name, stated))
        return stated
    with open_binary(file) as stream:
        encoding = json.detect_encoding(stream.read(4))
    if not encoding.startswith("utf-8"):
        notes.append(encoding[:6].upper())
        return encoding
    if _is_utf8(file):
        return encoding
    page, word = code_page_of(file)
    notes.append(CODE_PAGES[page] + (f", as in {word!r}" if word else ""))
    return page


def _check_encoding(name: str) -> None:
    try:
        io.TextIOWrapper(io.BytesIO(), name)
    except LookupError:
        raise SurveyError(
            f"unknown encoding {name!r}: name one such as utf-8, cp1252 or utf-16"
        ) from None


def _is_unicode(file: Path) -> bool:
    with open_binary(file) as stream:
        start = json.detect_encoding(stream.read(4))
    return not start.startswith("utf-8") or _is_utf8(file)


def _is_utf8(file: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_binary(file) as stream:
        try:
            while chunk := stream.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True
