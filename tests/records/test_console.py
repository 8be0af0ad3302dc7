"""What a run shows in a terminal while it goes on."""

from io import StringIO

import pytest
from rich.console import Console

from pluralllm_app.records.console import RoundTable
from tests.support.runs import make_entry


class Terminal(StringIO):
    """A terminal at which Ctrl-C is pressed once a text has been written."""

    interrupt_after = ""

    def flush(self) -> None:
        if self.interrupt_after and self.interrupt_after in self.getvalue():
            self.interrupt_after = ""
            raise KeyboardInterrupt


def test_a_row_is_there_once_whenever_ctrl_c_comes() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80)

    def run() -> None:
        with RoundTable(console, "waiting", rounds=3) as table:
            table.show(make_entry(0, 0.25))
            terminal.interrupt_after = "0.7500   0.7500"
            table.show(make_entry(1, 0.75, loss=0.5))

    with pytest.raises(KeyboardInterrupt):
        run()
    console.print("Stopped.")
    said = terminal.getvalue()
    assert [said.count(text) for text in ("0.2500   0.2500", "0.7500   0.7500", "Stopped.")] == [
        1,
        1,
        1,
    ]
