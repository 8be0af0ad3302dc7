"""The table of a run's groups, before and after training."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from pluralllm_app.scoring.results import GroupResult

FEW = 20
"""Below so many questions, a group's score says little."""
_QUESTIONS = (
    "questions: on how many a group is scored. A train group is scored on those that were held "
    "out of its training."
)
_WORSE = "* worse than before training"
_ON_FEW = f"+ scored on fewer than {FEW} questions, so that chance has much weight"


def print_groups(
    first: Mapping[str, GroupResult], last: Mapping[str, GroupResult], console: Console
) -> None:
    """Print how each group is predicted before and after training.

    Args:
        first: the groups by name, as the untrained predictor did on them; some may be missing.
        last: as the trained one did.
        console: where to print.
    """
    table = Table(title="Alignment by group (1 is perfect)", title_justify="left")
    table.add_column("group")
    table.add_column("role", no_wrap=True)
    for column in ("questions", "untrained"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("trained", justify="right", style="bold", no_wrap=True)
    notes = {_QUESTIONS: any(group.role == "train" for group in last.values())}
    for name, group in sorted(last.items(), key=lambda item: (item[1].role, item[0])):
        before = first.get(name)
        marks = {
            _WORSE: before is not None and group.alignment < before.alignment,
            _ON_FEW: group.questions < FEW,
        }
        for note, holds in marks.items():
            notes[note] = notes.get(note, False) or holds
        table.add_row(
            escape(name),
            group.role,
            f"{group.questions}{'+' if marks[_ON_FEW] else ' '}",
            f"{before.alignment:.4f}" if before else "-",
            f"{group.alignment:.4f}{'*' if marks[_WORSE] else ' '}",
        )
    print_whole_words(table, console)
    for note, holds in notes.items():
        if holds:
            console.print(note, markup=False, highlight=False)


def print_whole_words(table: Table, console: Console) -> None:
    """Print a table that is wider than the terminal rather than with a word cut in two."""
    sizes = Measurement.get(console, console.options.update(width=10**4), table)
    table.width = max(sizes.minimum, min(sizes.maximum, console.width))
    console.print(table, soft_wrap=True)
