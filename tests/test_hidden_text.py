"""Characters that drive a terminal or hide what a text says: refused or shown."""

import ast
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.markup import escape
from rich.table import Table

from pluralllm_app.core.hidden_text import hidden, printable
from pluralllm_app.core.terminal import Terminal, data_output
from pluralllm_app.errors import SurveyError, UserError
from pluralllm_app.federation.flower_compat import LOGGER, log_errors_plainly
from pluralllm_app.report.page import embed
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.sources.registry import read_source
from tests.conftest import ROOT

HOSTILE = {
    "\x1b[2J": "\\x1b[2J",  # clears the screen
    "\x1b]0;root\x07": "\\x1b]0;root\\x07",  # names the window
    "\x1b]8;;http://x\x1b\\y": "\\x1b]8;;http://x\\x1b\\y",  # a link that says something else
    "\x9b31m": "\\x9b31m",  # the same in C1
    "a\rb": "a\\rb",  # writes over the line
    "a\x08b": "a\\x08b",
    "x \u202eevil": "x \\u202eevil",  # from right to left
    "x \u2067evil": "x \\u2067evil",  # without an end
    "x \u202c": "x \\u202c",  # without a beginning
    "a\U000e0041b": "a\\U000e0041b",
    "\udc80": "\\udc80",
}
HARMLESS = [
    "می‌خواهم",  # Persian, with a joiner
    "क्‍ष",  # Hindi, with a joiner
    "👩‍👩‍👧",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
    "\u200fمجموعة\u200f (عربية)",  # marks of direction
    "\u202bمجموعة\u202c of \u2067عربية \u2066(x)\u2069\u2069",  # whole, one in another
    "Donau\u00addampf",
    "two\nlines\tand a tab",
    "São Tomé",
]
UNSEEN = ["zero\u200bwidth", "\ufeffmark", "word\u2060joiner"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_drives_a_terminal_is_found_and_shown(text: str) -> None:
    assert printable(text) == HOSTILE[text]
    assert printable(printable(text)) == printable(text)
    if "\r" not in text:
        assert hidden(text).startswith("U+")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_real_surveys_have_stays(text: str) -> None:
    assert hidden(text) == ""
    assert printable(text) == text


@pytest.mark.parametrize("text", UNSEEN)
def test_what_nobody_sees_is_taken_and_shown(text: str) -> None:
    assert hidden(text) == ""
    assert printable(text).isascii()
    assert "\\u" in printable(text)


def printed(*things: object, terminal: bool = True, **settings: object) -> str:
    """What a console prints, its own colours left out."""
    file = io.StringIO()
    colours: Any = "truecolor" if terminal else None
    console = Terminal(file=file, force_terminal=terminal, width=200, color_system=colours)
    for thing in things:
        console.print(thing, **settings)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_shows_what_is_hidden(terminal: bool) -> None:
    table = Table("group", title="\x1b]0;title\x07")
    table.add_row(escape("\x9b31m[b]"))
    table.add_row("[red]own colour[/]")
    text = printed("[bold]\x1b[31mred[/]", table, "\u202eevil", terminal=terminal)
    assert "\\x1b" in text
    assert "\\x1b]0;title" in text
    assert "\\x9b31m[b]" in text
    assert "\\u202eevil" in text
    assert "\x9b" not in text
    assert "\x1b]" not in text
    assert ("\x1b[1m" in text) == terminal  # what is bold is so
    assert "\x1b[31mred" not in text


def test_a_line_without_markup_is_shown_too() -> None:
    assert printed("\x1b[2J", terminal=False, markup=False, highlight=False) == "\\x1b[2J\n"


def test_a_status_still_moves() -> None:
    file = io.StringIO()
    console = Terminal(file=file, force_terminal=True, width=200)
    with console.status("\x1b]0;x\x07"):
        console.print("\x1b[2Jwork", highlight=False)
    assert "\\x1b[2Jwork" in file.getvalue()
    assert "\x1b]0;x" not in file.getvalue()
    assert "\x1b[?25l" in file.getvalue()  # hides the cursor


def test_data_are_shown_in_a_terminal_and_whole_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data_output().write("\x1b[2J")
    assert capsys.readouterr().out == "\x1b[2J"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    data_output().write("\x1b[2J")
    assert capsys.readouterr().out == "\\x1b[2J"


def test_no_command_prints_by_another_console() -> None:
    for file in sorted((ROOT / "pluralllm_app").rglob("*.py")):
        text = file.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "Console(" in text else ():
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id == "Console":  # type: ignore[attr-defined]
                quiet = [word.arg for word in node.keywords]  # type: ignore[attr-defined]
                assert quiet == ["quiet"], f"{file}, line {node.lineno}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [UserError("\x1b[2J"), RuntimeError("\x1b[2J")])
def test_logs_show_what_is_hidden(error: Exception) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    LOGGER.addHandler(handler)
    log_errors_plainly()
    try:
        LOGGER.warning("node %s: %s", 3, "\x1b]0;x\x07")
        try:
            raise error
        except Exception:
            LOGGER.exception("failed")
    finally:
        LOGGER.removeHandler(handler)
    assert "\x1b" not in stream.getvalue()
    assert "node 3: \\x1b]0;x\\x07" in stream.getvalue()
    assert "\\x1b[2J" in stream.getvalue()


def test_a_page_shows_what_is_hidden() -> None:
    content = {"group \u202ex": ["\x1b[2J", 1, None, ("\u2067y",)]}
    assert json.loads(embed(content)) == {"group \\u202ex": ["\\x1b[2J", 1, None, ["\\u2067y"]]}


@pytest.mark.parametrize("column", ["question", "option", "group"])
@pytest.mark.parametrize("text", ["a\x1b[2J", "a\x9bb", "a\u202eb", "a\u2067b"])
def test_prepare_refuses_it(tmp_path: Path, column: str, text: str) -> None:
    rows = [
        {"question_id": "1", "question": "Q", "option": option, "group": "G", "share": share}
        for option, share in (("Yes", 0.25), ("No", 0.75))
    ]
    for row in rows:
        row[column] = f"{row[column]} {text}"
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SurveyError, match="character U\\+"):
        read_source("table", file, 0)


@pytest.mark.parametrize("key", ["name", "source", "licence", "embedder", "group"])
def test_a_survey_with_it_is_not_opened(
    tiny_survey: PreparedSurvey, tmp_path: Path, key: str
) -> None:
    content = json.loads((tiny_survey.path / "survey.json").read_text("utf-8"))
    if key == "group":
        content["groups"][0]["name"] = "\x1b]0;x\x07"
    else:
        content[key] = "\x1b]0;x\x07"
    (tmp_path / "survey.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(SurveyError, match=r"hidden character U\+001B"):
        PreparedSurvey.open(tmp_path)
