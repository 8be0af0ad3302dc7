"""The commands that use a trained predictor: predict, ask and card."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pluralllm_app.cli.notes import say_notes, tell
from pluralllm_app.cli.options import DecimalOption
from pluralllm_app.core.parts import need
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.terminal import Terminal, data_output
from pluralllm_app.errors import UserError
from pluralllm_app.survey.embedders.names import shown
from pluralllm_app.survey.sources.stated import Stated

if TYPE_CHECKING:
    from pluralllm_app.use.group import Group
    from pluralllm_app.use.predicted import PredictedAnswers
    from pluralllm_app.use.predictor import Predictor
    from pluralllm_app.use.questions import Question

FORMATS = ("bars", "table", "csv", "json")
ASK_FORMATS = ("table", "csv", "json")
OF_QUESTION = ("question_id", "question", "new")  # what a row says of its question
SHOWN = 5  # questions that are drawn where none is named

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Run directory, saved predictor, or repository of a model hub."
    ),
]
AnswersOption = Annotated[
    Path | None,
    typer.Option(
        help="The group's answers: a table with the columns question (or question_id), option, and "
        "share or count; or a site."
    ),
]
DescriptionOption = Annotated[
    str | None, typer.Option(help="A line that says who the group is, as 'People in Japan'.")
]
FormatOption = Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")]
TableEncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding", help="Encoding of tables, where it is not clear by itself: utf-8, cp1252 ..."
    ),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option(help="The survey's embedder by name or directory, for new questions."),
]
QuestionnaireOption = Annotated[
    Path | None,
    typer.Option(help="Prepared survey or questionnaire, where the predictor has none beside it."),
]


def predict_command(
    model: ModelArgument,
    answers: AnswersOption = None,
    description: DescriptionOption = None,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", help="Id or text of a question; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the only --question, if that is a new one."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="Table of questions: columns question (or question_id) and option."),
    ] = None,
    format_: FormatOption = "bars",
    encoding: TableEncodingOption = None,
    decimal: DecimalOption = None,
    embedder: EmbedderOption = None,
    questionnaire: QuestionnaireOption = None,
) -> None:
    """Predict a group's answers with a trained predictor, and say how sure that is.

    What is known of the group is some of its answers, a description, both, or nothing. Questions
    can be the survey's or new ones. Without a question all are predicted that the group has not
    answered.

    Examples:

      pluralllm predict runs/first --answers north.csv

      pluralllm predict runs/first --answers north.csv --format csv > predicted.csv

      pluralllm predict runs/first --description 'People in Japan' --question 'Is tea better than
      coffee?' --option Yes --option No
    """
    _check_format(format_, FORMATS)
    stated = stated_of([answers, questions], encoding, decimal)
    asked = _asked(question or [], option or [], questions, stated)
    predictor = _load(model, embedder, questionnaire)
    group = _group(predictor, answers, description, stated)
    with _working("predicting"):
        found = group.predict(asked)
    say_notes(group)
    if asked is None and not found:
        raise UserError(
            "nothing is left to predict: the group has answered all questions. --question "
            "predicts one of them nevertheless"
        )
    _print(found, format_, shown=None if asked else SHOWN)


def ask_command(
    model: ModelArgument,
    answers: AnswersOption = None,
    description: DescriptionOption = None,
    count: Annotated[int, typer.Option(min=1, help="How many questions, at most.")] = 5,
    of: Annotated[
        Path | None,
        typer.Option(help="Table of the questions that may be asked; default: all of the survey."),
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="Column of --of with what each question costs.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(help="Table of the questions that you want to know; default: all."),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask here, one question after another.")
    ] = False,
    format_: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(ASK_FORMATS)}.")
    ] = "table",
    encoding: TableEncodingOption = None,
    decimal: DecimalOption = None,
    embedder: EmbedderOption = None,
    questionnaire: QuestionnaireOption = None,
) -> None:
    """Choose which questions to put to a group, so that its answers tell most about the others.

    The predictor has to be one of latent factors (predictor = factors, or prior = factors).

    Examples:

      pluralllm ask runs/first --count 5

      pluralllm ask runs/first --answers north.csv --target wanted.csv --of askable.csv --cost euros

      pluralllm ask runs/first --description 'People in Japan' --interactive
    """
    _check_format(format_, ASK_FORMATS)
    if interactive and format_ != "table":
        raise typer.BadParameter("--interactive prints as it goes: leave --format out")
    if cost and of is None:
        raise typer.BadParameter(
            f"--cost {cost} names a column of --of, which is not given: give both"
        )
    from pluralllm_app.cli.asking import ask
    from pluralllm_app.use.asking import factors_to_ask

    stated = stated_of([answers, of, target], encoding, decimal)
    predictor = _load(model, embedder, questionnaire)
    factors_to_ask(predictor.model)  # which may be refused before answers are asked for
    group = _group(predictor, answers, description, stated)
    ask(predictor, group, count, of, cost, target, stated, interactive, format_)


def card_command(model: ModelArgument, questionnaire: QuestionnaireOption = None) -> None:
    """Say what a trained predictor was made from, how well it predicts, and what its limits are.

    Example:

      pluralllm card runs/first
    """
    predictor = _load(model, None, questionnaire)
    console = Terminal()
    for heading, lines in predictor.card().items():
        console.print(heading, style="bold", markup=False, highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def stated_of(tables: Iterable[Path | None], encoding: str | None, decimal: str | None) -> Stated:
    """What is said of tables; raises UserError where none of these is one."""
    stated = Stated(encoding, decimal)
    if stated != Stated() and not any(file and not file.is_dir() for file in tables):
        raise UserError(
            "--encoding and --decimal are of a table, and none was given: leave them out"
        )
    return stated


def _check_format(wanted: str, known: tuple[str, ...]) -> None:
    if wanted not in known:
        raise typer.BadParameter(f"--format {wanted!r}: {did_you_mean(wanted, known)}")


def _asked(
    texts: list[str], options: list[str], table: Path | None, stated: Stated
) -> "list[str | Question] | None":
    """The questions that were named; None where none was."""
    if table is not None and texts:
        raise typer.BadParameter("give --question or --questions, not both")
    if options and len(texts) != 1:
        raise typer.BadParameter("--option belongs to one --question: give exactly one")
    from pluralllm_app.use.questions import Question

    if table is not None:
        need("survey", "reading questions from a file")
        from pluralllm_app.use.tables import read_questions

        return list(read_questions(table, stated)[0])
    if options:
        return [Question(texts[0], options)]
    return list(texts) or None


def _load(model: str, embedder: str | None, questionnaire: Path | None) -> "Predictor":
    with _working(f"Loading {model} ..."):
        from pluralllm_app.use.predictor import Predictor

        return Predictor.from_pretrained(model, questionnaire=questionnaire, embedder=embedder)


def _group(
    predictor: "Predictor", answers: Path | None, description: str | None, stated: Stated
) -> "Group":
    if description is not None and not predictor.texts.ready:
        tell(f"Loading the embedder {shown(predictor.about.embedder)} ...")
    with _working("reading the answers"):
        if answers is None or answers.is_dir():  # what is stated is of other tables then
            return predictor.group(answers, description)
        return predictor.group(
            answers, description, encoding=stated.encoding, decimal=stated.decimal
        )


def _print(found: "PredictedAnswers", format_: str, shown: int | None) -> None:
    if format_ == "json":
        records = [
            {
                "question_id": answer.question.id,
                "question": answer.question.text,
                "new": not answer.known,
                "options": [
                    {key: value for key, value in row.items() if key not in OF_QUESTION}
                    for row in answer.rows()
                ],
            }
            for answer in found
        ]
        data_output().write(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    elif format_ == "csv":
        rows = found.rows()
        if rows:
            writer = csv.DictWriter(data_output(), list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    elif format_ == "table":
        from pluralllm_app.cli.bars import print_table

        print_table(found)
    else:
        from pluralllm_app.cli.bars import print_bars

        print_bars(found[:shown])
        if shown is not None and len(found) > shown:
            tell(
                f"And {len(found) - shown:,} more: name one with --question, or see all with "
                "--format csv"
            )


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Show that something is being done, where somebody is looking."""
    with Terminal(stderr=True).status(escape(what)):
        yield
