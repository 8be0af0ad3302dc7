"""The card of a saved predictor: what it is, what it was made from, how well it predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pluralllm_app.core.wording import many
from pluralllm_app.predictors.base import LEVELS, ContextPredictor
from pluralllm_app.survey.shared import About, Questionnaire

LIMITS = (
    "It describes groups, and says nothing about a single person.",
    "A group's average is no licence to speak for it: ask the group where it matters.",
    "A question unlike all of its survey's, or of another time, is predicted less well than the "
    "scores say; a group unlike all that it was trained on, too.",
)


@dataclass(frozen=True, kw_only=True)
class RoleScores:
    """How a predictor did on the groups of one role, on questions that it was not given."""

    groups: int
    mean: float  # alignment, over groups
    worst: float | None  # None: single groups' scores were not known, only sums of them
    worst_group: str | None
    fairness_index: float
    coverage: Sequence[float] | None = None  # of intervals, for each of `base.LEVELS`


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a predictor was made, and how well it did."""

    version: str  # of this app
    date: str  # ISO 8601
    method: str  # e.g. "federated"
    settings: Mapping[str, str | int | float | bool]  # those that matter most
    seed: int
    round: int  # whose predictor it is
    context: int  # questions that it was given of each group
    train_groups: Sequence[str]
    evaluation_groups: Sequence[str]
    train: RoleScores | None = None  # on what was held out of the training
    evaluation: RoleScores | None = None  # on groups never trained on
    fingerprint: str | None = None  # of the survey


_HEAD = """---
library_name: pluralllm_app
tags:
- pluralllm
- preference-prediction
- {kind}
---

# {title}

From some questions that a group has answered, this predictor tells how the group's answers to
other questions are distributed. {about} It was made with `pluralllm_app`.
{warning}
"""
_WARNING = """
**This predictor contains the answers of the groups it was made with, in model.safetensors.** Share
it only with those who may see these answers.
"""
_WITH_TEXTS = """```python
from pluralllm_app import Predictor

predictor = Predictor.from_pretrained("the directory or repository that holds this file")
group = predictor.group({example})
for answer in group.predict():
    print(answer)
```

"""
_WITHOUT_TEXTS = """```python
from pluralllm_app import load_predictor

predictor = load_predictor("the directory or repository that holds this file")
prediction = predictor.predict(context, target)  # prediction.shares: one for each option
```

`context` is a preference set: questions with the group's answers; `target` are questions of the
same survey. Both need the survey's embeddings as the survey was prepared. Which survey and groups
the predictor was made with, and how well it predicts them, is in run.json and rounds.jsonl of its
run.
"""


def write_card(
    predictor: ContextPredictor, questionnaire: Questionnaire | None, training: Training | None
) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    parts = [
        _HEAD.format(
            kind=predictor.kind,
            title=predictor.title,
            about=predictor.about,
            warning=_WARNING if predictor.pools_answers else "",
        )
    ]
    if questionnaire is None:
        parts.append(_WITHOUT_TEXTS)
    else:
        parts.append(_WITH_TEXTS.format(example=_example(questionnaire)))
    facts = describe(predictor, questionnaire.about if questionnaire else None, training)
    for heading, lines in facts.items():
        parts.append(f"## {heading}\n\n" + "".join(f"- {line}\n" for line in lines) + "\n")
    return "".join(parts)


def describe(
    predictor: ContextPredictor, about: About | None, training: Training | None
) -> dict[str, list[str]]:
    """What a card says, as lines under headings."""
    facts: dict[str, list[str]] = {}
    if about:
        embedder = about.embedder + (f", template {about.template}" if about.template else "")
        made_up = "; its answers are made up" if about.synthetic else ""
        facts["Survey"] = [
            f"{about.survey}{made_up}",
            f"Source: {about.source}",
            f"Licence of the data: {about.licence}",
            f"Questions were embedded by: {embedder}",
        ]
    if training:
        facts["Training"] = _training(training)
        facts["Scores"] = _scores(training, about)
    facts["Limits"] = list(LIMITS)
    if predictor.least_context:
        facts["Limits"].append("It needs at least one answer of a group.")
    return facts


def _training(training: Training) -> list[str]:
    settings = ", ".join(f"{key} = {value}" for key, value in training.settings.items())
    return [
        f"{training.method}, {settings or 'default settings'}; seed {training.seed}, "
        f"round {training.round}, pluralllm_app {training.version}, {training.date[:10]}",
        f"Trained on {many(len(training.train_groups), 'group')}: "
        + ", ".join(training.train_groups),
    ]


def _scores(training: Training, about: About | None) -> list[str]:
    metric = "Wasserstein" if about and about.metric == "wasserstein" else "Jensen-Shannon"
    lines = [
        f"Alignment is 1 minus the {metric} distance between predicted and true shares, given "
        f"{training.context} answers of a group."
    ]
    for noun, which, scores in (
        ("group", " never trained on", training.evaluation),
        ("train group", ", on questions held out of training", training.train),
    ):
        if scores is None:
            continue
        line = (
            f"{many(scores.groups, noun)}{which}: mean {scores.mean:.3f}, {worst_of(scores)}, "
            f"fairness index {scores.fairness_index:.4f}"
        )
        if scores.coverage:
            covered = " and ".join(
                f"{level:.0%} intervals held {found:.0%}"
                for level, found in zip(LEVELS, scores.coverage, strict=True)
            )
            line += f"; {covered} of the true shares"
        lines.append(line)
    return lines


def worst_of(scores: RoleScores) -> str:
    """The worst group's score, in words; that it is not known where it is not."""
    if scores.worst is None:
        return "worst group unknown (scores were summed)"
    return f"worst {scores.worst:.3f} ({scores.worst_group})"


def _example(questionnaire: Questionnaire) -> str:
    questions = questionnaire.questions
    first = min(range(len(questions)), key=lambda number: len(questions.options[number]))
    count = len(questions.options[first])
    shares = {option: round(1 / count, 2) for option in questions.options[first]}
    return f"{{{questions.texts[first]!r}: {shares!r}}}"
