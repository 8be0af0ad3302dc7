"""Predicted answers as bars or a table in the terminal."""

import sys

from rich.markup import escape
from rich.table import Table

from pluralllm_app.core.terminal import Terminal
from pluralllm_app.use.predicted import ASCII_INKS, INKS, PredictedAnswers


def print_bars(found: PredictedAnswers) -> None:
    """Print predicted answers as bars, in characters that the output has."""
    encoding = sys.stdout.encoding or "ascii"
    inks = INKS if "".join(INKS).encode(encoding, "ignore") else ASCII_INKS
    console = Terminal()
    if any(answer.intervals for answer in found):
        ends = "a bar is solid up to the lower end and goes to the upper one"
        console.print(f"Shares with their 80% intervals; {ends}.\n", style="dim", highlight=False)
    for number, answer in enumerate(found):
        question, *bars = answer.lines(inks)
        if number:
            print()
        console.print(question, style="bold", markup=False, highlight=False)
        for bar in bars:
            console.print(bar, markup=False, highlight=False, soft_wrap=True)


def print_table(found: PredictedAnswers) -> None:
    """Print predicted answers as a table, a row for each option."""
    levels = sorted({level for answer in found for level in answer.intervals})
    table = Table("question", "option", "share", *(f"{level:.0%} interval" for level in levels))
    for answer in found:
        table.add_section()
        for number, (option, share) in enumerate(answer.shares.items()):
            bounds = [answer.intervals[level][option] for level in levels]
            table.add_row(
                "" if number else escape(answer.question.text),
                escape(option),
                f"{share:.1%}",
                *(f"{low:.1%} to {high:.1%}" for low, high in bounds),
            )
    Terminal().print(table)
