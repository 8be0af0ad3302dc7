"""Writes what a model is asked as tasks of lm-evaluation-harness, with the survey's metric."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pluralllm_app import __version__
from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.core.names import file_slugs
from pluralllm_app.core.segments import segment_starts
from pluralllm_app.errors import UserError
from pluralllm_app.judge import harness_metric
from pluralllm_app.judge.plan import Plan
from pluralllm_app.use.prompts import labels

METRIC = "metric.py"
SUMMARIES = ("alignment", "worst", "fairness_index")
TASK = """# Written by pluralllm_app {version}. {about}
task: {task}
custom_dataset: !function metric.questions
dataset_kwargs:
  file: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: letters
doc_to_target: 0  # no option is the right one: process_results has the groups' shares
target_delimiter: " "
process_results: !function metric.process_results
metric_list:
{metrics}
metadata:
  version: 1.0
"""
METRIC_ENTRY = """  - metric: {metric}
    aggregation: !function metric.{aggregation}
    higher_is_better: true
"""
README = """# {name}: how well a language model answers as each group does

Tasks of lm-evaluation-harness, written by pluralllm_app {version}:

- `{plain}`: the model answers as itself, {questions} questions, each in every cyclic order of its
  options, and is scored against all groups.
- `{persona}`: it is told as whom to answer, for each group its own questions.

```
lm_eval run --include_path THIS_DIRECTORY --tasks {plain},{persona} \\
    --model hf --model_args pretrained=MODEL --apply_chat_template
```

`--apply_chat_template` belongs to chat models. Shares are the probabilities of the letters, scaled
to sum to 1 and averaged over the orders. `alignment_GROUP` is the mean over the questions of
{metric}; `alignment`, `worst` and `fairness_index` are over the groups ({groups}).

The files hold these groups' answers. Their source: {source}. Licence of the data: {licence}.
"""
_METRICS = {
    "jensen-shannon": "1 - the Jensen-Shannon distance (nats) of its shares and the group's",
    "wasserstein": "1 - W1 / (largest value - smallest) of its shares and the group's",
}


def write_tasks(plan: Plan, out: Path) -> list[str]:
    """Write the tasks of a plan into a directory, which must not be there; returns their names.

    Raises:
        UserError: the directory is there, or cannot be written.
    """
    if out.exists():
        raise UserError(f"{out} is there already: give another --export, or remove it")
    base = "pluralllm_" + file_slugs([plan.survey.name])[plan.survey.name].replace("-", "_")
    tasks: dict[str, list[str | None]] = {base: [None], f"{base}_persona": [*plan.groups]}
    try:
        with whole_directory(out) as fresh:
            source = Path(harness_metric.__file__).read_text("utf-8")
            (fresh / METRIC).write_text(source, "utf-8")
            for task, personas in tasks.items():
                _write_task(fresh, task, personas, plan)
            (fresh / "README.md").write_text(_readme(plan, *tasks), "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): give another --export") from error
    return list(tasks)


def _write_task(place: Path, task: str, personas: Sequence[str | None], plan: Plan) -> None:
    slugs = _slugs(plan)
    file = f"{task}.jsonl"
    with (place / file).open("w", encoding="utf-8") as stream:
        for document in _documents(plan, personas, slugs):
            stream.write(json.dumps(document, ensure_ascii=False) + "\n")
    entries = [METRIC_ENTRY.format(metric=name, aggregation=name) for name in SUMMARIES]
    entries += [
        METRIC_ENTRY.format(metric=f"alignment_{slug}", aggregation="alignment")
        for slug in slugs.values()
    ]
    survey = plan.survey
    about = (
        f"Survey {survey.name}, {survey.fingerprint[:12]}. Licence of the data: {survey.licence}"
    )
    content = TASK.format(
        version=__version__,
        about=" ".join(about.split()),
        task=task,
        file=json.dumps(file),
        metrics="".join(entries).rstrip("\n"),
    )
    (place / f"{task}.yaml").write_text(content, "utf-8")


def _documents(
    plan: Plan, personas: Sequence[str | None], slugs: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """One for each question, persona and order of options."""
    truths = {name: _truths(plan, name) for name in plan.groups}
    for place, prompt in plan.prompts(personas):
        about = [place.persona] if place.persona is not None else list(plan.groups)
        found = [
            {"group": slugs[name], **truths[name][place.question]}
            for name in about
            if place.question in truths[name]
        ]
        yield {
            "question": plan.questions[place.question].id,
            "prompt": prompt.text,
            "letters": labels(len(prompt.question.options)),
            "turn": place.turn,
            "metric": plan.survey.metric,
            "groups": found,
        }


def _truths(plan: Plan, name: str) -> dict[int, dict[str, list[float]]]:
    """A group's shares, and the options' ordinal values, by question."""
    _, target = plan.draws[name]
    own = plan.groups[name].select(target)
    found = {}
    rows = zip(own.questions.tolist(), segment_starts(own.options), own.options, strict=True)
    for question, start, options in rows:
        flat = slice(start, start + options)
        values = [] if own.values is None else own.values[flat].tolist()
        found[question] = {"shares": own.shares[flat].tolist(), "values": values}
    return found


def _slugs(plan: Plan) -> dict[str, str]:
    found = file_slugs(plan.groups)
    return {name: slug.replace("-", "_") for name, slug in found.items()}


def _readme(plan: Plan, plain: str, persona: str) -> str:
    slugs = _slugs(plan)
    survey = plan.survey
    return README.format(
        name=survey.name,
        version=__version__,
        plain=plain,
        persona=persona,
        questions=len(plan.questions),
        metric=_METRICS[survey.metric],
        groups=", ".join(f"{slug}: {name}" for name, slug in slugs.items()),
        source=survey.source,
        licence=survey.licence,
    )
