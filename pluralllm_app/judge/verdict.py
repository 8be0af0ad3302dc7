"""How well a language model answers as each group does, beside what needs no language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.segments import Ints
from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import Distributions
from pluralllm_app.judge.plan import Plan
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.scoring.evaluation import score_shares
from pluralllm_app.scoring.metrics import GroupScores, fairness_index

MOST_UNANSWERED = 0.1  # of a group's questions


@dataclass(frozen=True)
class Method:
    """A column of the table."""

    name: str  # for programs
    title: str  # for people


@dataclass(frozen=True)
class Score:
    """How well one method answers as one group does."""

    alignment: float  # mean over questions
    error: float  # standard error of that mean
    questions: int


@dataclass(frozen=True)
class Summary:
    """A method over all groups."""

    mean: float
    worst: float
    worst_group: str
    fi: float


@dataclass(frozen=True)
class Verdict:
    """The scores of all methods on the same questions of each group."""

    methods: Sequence[Method]
    scores: Mapping[str, Mapping[str, Score]]  # by group, by the method's name
    asked: Mapping[str, int]  # by group: questions that were asked

    def summary(self, method: str) -> Summary:
        """One method over all groups."""
        by_group = {group: own[method].alignment for group, own in self.scores.items()}
        values = list(by_group.values())
        worst = min(by_group, key=lambda group: (by_group[group], group))
        return Summary(float(np.mean(values)), by_group[worst], worst, fairness_index(values))


@dataclass(frozen=True, eq=False)
class Contender:
    """A way to answer for a group: a predictor, or a model as one persona for all or for each."""

    method: Method
    predictor: ContextPredictor | None = None
    by_group: Mapping[str, Distributions] | None = None


def judge(plan: Plan, contenders: Sequence[Contender]) -> Verdict:
    """Score everybody on the same questions: those to which every contender has an answer.

    Raises:
        UserError: a model has answered none of a group's questions.
    """
    scores: dict[str, dict[str, Score]] = {}
    for group in plan.groups:
        kept = _answered(plan, group, contenders)
        if not len(kept):
            raise UserError(
                f"the model named no option in its answers to all {len(plan.asked(group))} "
                f"questions asked for {group!r}, so that there is nothing to score: see what it "
                "answers, and sample answers with --samples 10 where it does not begin with a "
                "letter"
            )
        scores[group] = {
            each.method.name: _score(_scored(plan, group, kept, each)) for each in contenders
        }
    asked = {group: len(plan.asked(group)) for group in plan.groups}
    return Verdict([each.method for each in contenders], scores, asked)


def unanswered(verdict: Verdict) -> list[str]:
    """The groups too many of whose questions were left out, with how many of how many."""
    found = []
    for group, asked in verdict.asked.items():
        scored = next(iter(verdict.scores[group].values())).questions
        if asked - scored > MOST_UNANSWERED * asked:
            found.append(f"{group} ({asked - scored} of {asked})")
    return found


def _answered(plan: Plan, group: str, contenders: Sequence[Contender]) -> Ints:
    """[n] positions of the group's questions to which every model has an answer."""
    answers, (_, target) = plan.groups[group], plan.draws[group]
    known = [each.by_group[group].shares for each in contenders if each.by_group is not None]
    indices = answers.questions[target].tolist()
    kept = [place for place, index in enumerate(indices) if all(index in own for own in known)]
    found: Ints = target[kept]
    return found


def _scored(plan: Plan, group: str, kept: Ints, contender: Contender) -> GroupScores:
    answers = plan.groups[group]
    context, _ = plan.draws[group]
    if contender.by_group is not None:
        own = contender.by_group[group].shares
        shares = np.concatenate([own[index] for index in answers.questions[kept].tolist()])
    else:
        assert contender.predictor is not None  # one of the two
        found = contender.predictor.predict(answers.select(context), answers.ask(kept))
        shares = found.shares
    return score_shares(answers, [(context, kept)], [shares], plan.survey.metric)


def _score(scores: GroupScores) -> Score:
    count = len(scores.scores)
    error = float(scores.scores.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return Score(scores.mean, error, count)
