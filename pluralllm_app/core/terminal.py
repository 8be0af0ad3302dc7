"""What commands print: texts that came from elsewhere drive no terminal."""

import sys
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from pluralllm_app.core.hidden_text import printable


class Terminal(Console):
    """A console that shows hidden characters of all that it prints as escapes."""

    def __init__(self, **settings: Any) -> None:
        """Make a console to which `:AB:`, as in a fingerprint, is a text and no picture."""
        super().__init__(emoji=False, **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as any console, with what is a text made visible."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a text as any console, visible before it is measured."""
        return super().render_str(printable(text), **settings)


class Output(Protocol):
    """Where a program's data are written."""

    def write(self, text: str, /) -> object:
        """Write a text."""


class _Shown:
    def write(self, text: str, /) -> None:
        sys.stdout.write(printable(text))


def data_output() -> Output:
    """Standard output for data such as JSON: as they are, or visible where it is a terminal."""
    return _Shown() if sys.stdout.isatty() else sys.stdout
