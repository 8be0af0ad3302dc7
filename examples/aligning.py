"""What the examples of alignment share: groups of the demo survey, and tables of how each fares.

The demo survey, data/demo in the working directory, plays the groups. A predictor that has never
seen them is given some of their answers; how they truly answer is only looked at in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from quickstart import train

from pluralllm_app import Predictor, PreparedSurvey, Question
from pluralllm_app.rewards import Form, GroupReward, SeveralGroups
from pluralllm_app.scoring.metrics import fairness_index
from pluralllm_app.use.group import Group

KNOWN = 20  # answers of each group that the predictor is given
Shares = dict[str, list[list[float]]]  # by group, then by question and option


@dataclass(frozen=True)
class Setting:
    """Groups that nobody trained on, and questions that a policy is asked."""

    groups: list[Group]
    questions: list[Question]
    true: Shares

    def reward(self, rule: str, form: Form) -> SeveralGroups:
        """The reward of all groups. What cannot be read earns the least that there is."""
        least = -1.0 if form == "match" else 0.0
        rewards = [GroupReward(group, form, unread=least) for group in self.groups]
        return SeveralGroups(rewards, rule, name=rule)


@dataclass(frozen=True)
class Fared:
    """How groups fare, by one score of each."""

    mean: float
    worst: float
    fairness: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Fared":
        return cls(float(np.mean(scores)), min(scores), fairness_index(scores))


def make_setting(run: str | None, count: int) -> Setting:
    """Set the scene.

    Args:
        run: on the demo survey; None: train one first, which takes about a minute.
        count: of questions.
    """
    predictor = Predictor.from_pretrained(run or train())
    survey = PreparedSurvey.open("data/demo")
    every = {each.name: true_answers(survey, each.name) for each in survey.groups}
    names = [each.name for each in survey.groups if each.role == "evaluation"]
    asked = [each for each in predictor.questions if all(each.id in every[name] for name in names)]
    known, rest = asked[:: len(asked) // KNOWN][:KNOWN], asked[1 :: len(asked) // count]
    questions = [each for each in rest if each not in known][:count]
    groups = [
        predictor.group({each: every[name][each.id] for each in known}, name=name) for name in names
    ]
    true = {name: [every[name][each.id] for each in questions] for name in names}
    return Setting(groups, questions, true)


def true_answers(survey: PreparedSurvey, group: str) -> dict[str | None, list[float]]:
    """A group's shares by question id."""
    answers, ids = survey.preferences(group), survey.questions().ids
    shares = np.split(answers.shares, answers.starts[1:])
    return {
        ids[question]: each.tolist()
        for question, each in zip(answers.questions, shares, strict=True)
    }


def row(label: str, seeds: list[tuple[float, Fared, float, Fared]]) -> str:
    """A line of a table: reward and groups before, and after; means of all seeds."""
    numbers = []
    for part in (0, 2):
        numbers.append(np.mean([seed[part] for seed in seeds]))
        for name in ("mean", "worst", "fairness"):
            numbers.append(np.mean([getattr(seed[part + 1], name) for seed in seeds]))
    spread = np.ptp([seed[3].worst for seed in seeds])
    cells = [f"{number:.3f}" for number in numbers]
    pairs = [f"{cells[place]} > {cells[place + 4]}" for place in range(4)]
    return f"| {label:24} | {' | '.join(pairs)} | {spread:.3f} |"


HEADER = """\
| rule, form               | reward        | groups' mean  | worst group   | FI            | \
spread of the worst |
|---|---|---|---|---|---|"""
