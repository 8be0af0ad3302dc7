"""What `pluralllm ask` prints, and its conversation."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pluralllm_app.cli.bars import print_bars
from pluralllm_app.cli.notes import say_notes
from pluralllm_app.core.parts import need
from pluralllm_app.core.terminal import Terminal, data_output
from pluralllm_app.errors import AnswersError, UserError
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.use.asking import NextQuestion
from pluralllm_app.use.group import Group
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question

_THOUSANDS = re.compile(r"\d[.,]\d{3}(?!\d)")
BELIEFS = 3  # predicted answers that are shown in a conversation


def ask(
    predictor: Predictor,
    group: Group,
    count: int,
    of: Path | None,
    cost: str | None,
    target: Path | None,
    stated: Stated,
    interactive: bool,
    format_: str,
) -> None:
    """Choose questions, and print them or ask them; see `pluralllm ask --help`."""
    among = costs = about = None
    if of or target:
        need("survey", "reading questions from a file")
        from pluralllm_app.use.tables import read_questions

        if of:
            among, found = read_questions(of, stated, cost)
            costs = found if cost else None
        about = read_questions(target, stated)[0] if target else None
    console = Terminal()
    with Terminal(stderr=True).status("choosing"):
        chosen = group.ask(count, among, about, costs)
    say_notes(group)
    if not chosen:
        raise UserError("nothing is left to ask: the group has answered all of these questions")
    if not interactive:
        _print(chosen, format_, console)
        return
    try:
        group = _ask_each(predictor, group, chosen, console)
    except EOFError:
        raise UserError("the input has ended before all questions were asked") from None
    console.print("\nWhat is predicted now", style="bold", highlight=False)
    print_bars(group.predict(about)[:BELIEFS])
    _print_answers(group, console)


def _ask_each(
    predictor: Predictor, group: Group, chosen: Sequence[NextQuestion], console: Console
) -> Group:
    for number, each in enumerate(chosen, 1):
        console.print(f"\n{number} of {len(chosen)}", style="bold", highlight=False)
        print_bars(group.predict([each.question]))
        group = _asked(predictor, group, each.question, console)
    return group


def _print_answers(group: Group, console: Console) -> None:
    """Print what is known of the group, as numbers of people if all answers came as such."""
    console.print("\nAll answers that are known now, as a table for --answers:", style="bold")
    known = group.known
    people = known.respondents
    counted = people is not None and not np.isnan(people).any()
    writer = csv.writer(data_output(), lineterminator="\n")
    unit = "count" if counted else "share"
    writer.writerow(["question_id", "question", "new", "option", unit])
    shares = iter(known.shares.tolist())
    for number, question in enumerate(known.questions):
        for option in question.options:
            share = next(shares)
            amount = round(share * people[number]) if counted and people is not None else share
            new = "" if question.id else "yes"
            writer.writerow([question.id or "", question.text, new, option, f"{amount:.10g}"])


def _asked(predictor: Predictor, group: Group, question: Question, console: Console) -> Group:
    """The group with the answer that is typed, or as it was if the question is left out."""
    wanted = f"Percentages or people of the {len(question.options)} options, in their order"
    while True:
        console.print(f"{wanted}, with spaces between; nothing to leave it out.", highlight=False)
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            _print_answers(group, console)
            raise
        if _THOUSANDS.search(line):
            console.print("Write thousands without a sign between: 1000", highlight=False)
            continue
        typed = line.replace(",", ".").replace("%", " ").split()
        if not typed:
            return group
        try:
            numbers = [float(word) for word in typed]
        except ValueError:
            console.print("Write numbers, as in: 60 30 10", highlight=False)
            continue
        try:
            more = predictor.more(group, {question: numbers})
        except AnswersError as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            continue
        for note in more.notes[len(group.known.notes) :]:
            console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)
        return more


def _print(chosen: Sequence[NextQuestion], format_: str, console: Console) -> None:
    rows = [
        {
            "question_id": each.question.id,
            "question": each.question.text,
            "options": list(each.question.options),
            "explained": round(each.explained, 4),
        }
        for each in chosen
    ]
    if format_ == "json":
        data_output().write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    elif format_ == "csv":
        writer = csv.writer(data_output(), lineterminator="\n")
        writer.writerow(["question_id", "question", "option", "explained"])
        for row, each in zip(rows, chosen, strict=True):
            for option in each.question.options:
                writer.writerow([row["question_id"], row["question"], option, row["explained"]])
    else:
        table = Table("", "question", "options", "explained")
        for number, each in enumerate(chosen, 1):
            options = " / ".join(each.question.options)
            texts = (escape(text) for text in (each.question.text, options))
            table.add_row(str(number), *texts, f"{each.explained:.0%}")
        console.print(table, highlight=False)
        console.print(
            "explained: how much of what is uncertain about the group's other answers this and "
            "the questions before it take away.",
            highlight=False,
        )
