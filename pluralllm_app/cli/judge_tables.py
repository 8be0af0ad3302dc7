"""The verdict on a language model: as a table, as CSV, as JSON."""

import csv
import json
import math
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from pluralllm_app.core.terminal import Terminal, data_output
from pluralllm_app.core.wording import many
from pluralllm_app.judge.beside import Setting
from pluralllm_app.judge.plan import LETTERS
from pluralllm_app.judge.run import Judged
from pluralllm_app.records.groups_table import print_whole_words

FEW_NAMED = 0.5  # of a model's answers; with fewer, what is scored is a part of what it says
COLUMNS = ("score", "group", "method", "value", "standard_error", "questions")


def print_verdict(judged: Judged, setting: Setting, format_: str) -> None:
    """Print a verdict; notes go to standard error where the output is for programs."""
    notes = list(_notes(judged, setting))
    if format_ == "json":
        content = json.dumps(_record(judged, setting, notes), indent=1, ensure_ascii=False)
        data_output().write(content + "\n")
        return
    if format_ == "csv":
        writer = csv.writer(data_output(), lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(judged))
    else:
        _print_table(judged, setting)
    console = Terminal(stderr=format_ == "csv")
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _print_table(judged: Judged, setting: Setting) -> None:
    verdict = judged.verdict
    survey = setting.plan.survey.name
    table = Table(
        title=f"Alignment of {escape(judged.model)} with groups of {escape(survey)} (1 is perfect)",
        title_justify="left",
    )
    table.add_column("group")
    table.add_column("questions", justify="right", no_wrap=True)
    for method in verdict.methods:
        table.add_column(escape(method.title), justify="right")
    for group, scores in verdict.scores.items():
        questions = next(iter(scores.values())).questions
        cells = (f"{scores[method.name].alignment:.3f}" for method in verdict.methods)
        table.add_row(escape(group), str(questions), *cells)
    table.add_section()
    summaries = [verdict.summary(method.name) for method in verdict.methods]
    table.add_row("mean", "", *(f"{each.mean:.3f}" for each in summaries))
    table.add_row("worst", "", *(f"{each.worst:.3f}" for each in summaries))
    table.add_row("FI", "", *(f"{each.fi:.4f}" for each in summaries))
    print_whole_words(table, Terminal())


def _rows(judged: Judged) -> Iterator[list[Any]]:
    verdict = judged.verdict
    for group, scores in verdict.scores.items():
        for method in verdict.methods:
            own = scores[method.name]
            error = "" if math.isnan(own.error) else own.error
            yield ["alignment", group, method.name, own.alignment, error, own.questions]
    for method in verdict.methods:
        summary = verdict.summary(method.name)
        yield ["mean", "", method.name, summary.mean, "", ""]
        yield ["worst", summary.worst_group, method.name, summary.worst, "", ""]
        yield ["fi", "", method.name, summary.fi, "", ""]


def _record(judged: Judged, setting: Setting, notes: list[str]) -> dict[str, Any]:
    verdict = judged.verdict
    survey = setting.plan.survey
    methods = []
    for method in verdict.methods:
        summary = verdict.summary(method.name)
        groups = {group: own[method.name] for group, own in verdict.scores.items()}
        methods.append(
            {
                "method": method.name,
                "title": method.title,
                "mean": summary.mean,
                "worst": summary.worst,
                "worst_group": summary.worst_group,
                "fi": summary.fi,
                "groups": {
                    group: {
                        "alignment": own.alignment,
                        "standard_error": None if math.isnan(own.error) else own.error,
                        "questions": own.questions,
                    }
                    for group, own in groups.items()
                },
            }
        )
    asked = {
        each.method.name: {"named": each.named, "moved": _number(each.moved)}
        for each in judged.asked
    }
    return {
        "model": judged.model,
        "survey": {"name": survey.name, "fingerprint": survey.fingerprint, "metric": survey.metric},
        "way": judged.way,
        "asked": asked,
        "methods": methods,
        "notes": notes,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _notes(judged: Judged, setting: Setting) -> Iterator[str]:
    verdict, plan = judged.verdict, setting.plan
    yield (
        "FI: fairness index over the groups, 1 if all score the same. All columns are of the same "
        "questions of a group. as group: the model, told as whom to answer."
    )
    yield (
        f"Answers of the model: {judged.way}; each question in every cyclic order of its options, "
        "averaged."
    )
    for each in judged.asked:
        if each.named < FEW_NAMED:
            yield (
                f"WARNING, {each.method.title}: only {each.named:.1%} of its answers name an "
                "option. What is scored is that part alone, and not what the model says most of "
                "the time: take a chat model, or for one behind an API --samples 10."
            )
        else:
            yield f"{each.method.title}: {each.named:.1%} of its answers name an option."
        if each.silent:
            yield (
                f"{each.method.title}: {each.silent:.1%} of the letters are not among the tokens "
                "that the server lists, and count as 0."
            )
        if not math.isnan(each.moved):
            yield (
                f"{each.method.title}: one order of options gives answers that are "
                f"{each.moved:.3f} away (Jensen-Shannon distance) from the mean of all orders."
            )
    errors = [own.error for scores in verdict.scores.values() for own in scores.values()]
    if known := [error for error in errors if not math.isnan(error)]:
        yield f"Standard errors of the groups' scores, over questions: at most {max(known):.3f}."
    if plan.left_out:
        yield (
            f"Not asked: {many(plan.left_out, 'question')} with more than {LETTERS} options, "
            "or with options that differ by capitals alone."
        )
    for group, scores in verdict.scores.items():
        missing = verdict.asked[group] - next(iter(scores.values())).questions
        if missing:
            yield (
                f"{group}: for {missing} of {many(verdict.asked[group], 'question')} the model "
                "named no option; no method is scored on them."
            )
    if any(method.name == "consensus" for method in verdict.methods):
        yield "consensus: the mean of the train groups' answers, which takes them in one place."
    else:
        yield "Without a consensus: the survey has no other group, for training."
    if setting.predictor is not None:
        yield f"predictor: {setting.predictor}; no method is scored on these."
    else:
        yield (
            "Without a predictor: give --predictor RUN, as `pluralllm run --config "
            f"conf/factors.toml --survey {plan.survey.path} --out RUN` makes one."
        )
