"""Predicted answers as bars in the terminal."""

import sys

from rich.console import Console

from pluralllm_app.use.predicted import ASCII_INKS, INKS, PredictedAnswers


def print_bars(found: PredictedAnswers) -> None:
    """Print predicted answers as bars, in characters that the output has."""
    encoding = sys.stdout.encoding or "ascii"
    inks = INKS if "".join(INKS).encode(encoding, "ignore") else ASCII_INKS
    console = Console()
    for number, answer in enumerate(found):
        question, *bars = answer.lines(inks)
        if number:
            print()
        console.print(question, style="bold", markup=False, highlight=False)
        for bar in bars:
            console.print(bar, markup=False, highlight=False, soft_wrap=True)
