"""Help that fits a terminal of any width: it has one line for each paragraph, not those of code."""

import inspect

import typer


def join_lines(app: typer.Typer) -> None:
    """Give each command of `app`, and of what is below it, help with a line for each paragraph."""
    for command in app.registered_commands:
        text = command.help or inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(map(_joined, inspect.cleandoc(text).split("\n\n")))
    for group in app.registered_groups:
        if group.typer_instance:
            join_lines(group.typer_instance)


def _joined(paragraph: str) -> str:
    indent = paragraph[: len(paragraph) - len(paragraph.lstrip())]  # of examples
    return indent + " ".join(line.strip() for line in paragraph.splitlines())
